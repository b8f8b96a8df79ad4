"""The benchmark proper: tasks, the mitigation contract, training, measurement, suites and records."""
