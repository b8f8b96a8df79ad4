"""Ray: turns a suite into cells, runs them on one machine or many, retries and resumes."""
