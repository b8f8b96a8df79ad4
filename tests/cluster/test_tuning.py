from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from goalposts._cli.tuning import tuned_json, write_plots
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.record import Record, read
from goalposts.benchmark.experiment.run_cell import run_cell
from goalposts.benchmark.experiment.suite import Factored, MitigationPlan, Suite, TaskPlan, get_suite
from goalposts.benchmark.loading import MITIGATIONS, registered
from goalposts.benchmark.measurement.evaluation import evaluation_set, tuning_set
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.cluster import tuning
from goalposts.cluster.tuning import TOGETHER, StudyPlan, Tuned, counted, objective, open_study, plan_tuning, tune
from tests.cluster.helpers import TINY, folder_of, job
from tests.results.factory import record, split

SEARCHES = """
from goalposts import Mitigation

class Searches(Mitigation):
    search_space = {"size": {"low": 1, "high": 8}, "rate": {"low": 0.1, "high": 10.0, "log": True},
                    "kind": {"choices": ["a", "b"]}}

    def __init__(self, size=4, rate=1.0, kind="a", other=3):
        pass
"""
Worth = Callable[[Cell], float]


def two_tasks() -> Suite:
    """Return a suite of two tasks and two rates, tiny."""
    plans = tuple(TaskPlan(task=name, training=TINY) for name in ("corner", "fraud"))
    return get_suite("smoke").model_copy(update={"tasks": plans, "alphas": (0.0, 1.0)})


@pytest.fixture
def searches(tmp_path: Path) -> str:
    path = tmp_path / "searches.py"
    path.write_text(SEARCHES)
    return f"{path}:Searches"


def plan_of(mitigation: str = "none", **changes: Any) -> StudyPlan:
    given: dict[str, Any] = {
        "selection": "validation_shift",
        "tasks": (),
        "alphas": (),
        "seeds": 1,
        "device": "cpu",
        "salt_commitment": salt_commitment(PUBLIC_SALT),
        "suite": two_tasks(),
    }
    return plan_tuning(mitigation=mitigation, **{**given, **changes})


def result(cell: Cell, score: float, seen: float = 1.0) -> Record:
    """Return a record with this score on the validation shift, and this aligned rate in distribution."""
    splits = {"in_distribution": split(seen, 0.0), "validation_shift": split(score / 100, 0.0, ranked=True)}
    return record(score=score, splits=splits).model_copy(update={"cell": cell.key, "cell_id": cell.cell_id})


class Fake:
    """Runs no cell: what a record says follows from the cell's hyperparameters."""

    def __init__(self, worth: Worth, stops_at: int | None = None) -> None:
        self.worth = worth
        self.stops_at = stops_at
        self.calls: list[list[Cell]] = []

    def __call__(self, cells: Sequence[Cell]) -> Mapping[str, Record]:
        self.calls.append(list(cells))
        if len(self.calls) == self.stops_at:
            raise KeyboardInterrupt
        return {cell.cell_id: result(cell, self.worth(cell)) for cell in cells}


def by_rate(cell: Cell) -> float:
    """Prefer twice the suite's learning rate."""
    return 100 - 1000 * abs(cell.training.learning_rate - 2 * TINY.learning_rate)


def go(plan: StudyPlan, folder: Path, trials: int, run: Fake) -> tuple[optuna.Study, Tuned]:
    folder.mkdir(exist_ok=True)
    study = open_study(plan, folder)
    return study, tune(plan, study, trials, run)


def history(study: optuna.Study) -> list[tuple[dict[str, Any], float | None]]:
    return [(trial.params, trial.value) for trial in counted(study)]


def test_the_first_trial_is_the_suite_s_own_with_the_defaults(searches: str, tmp_path: Path) -> None:
    plan = plan_of(searches)
    assert plan.defaults == {
        "factor_learning_rate": 1.0,
        "factor_entropy_coeff": 1.0,
        "factor_clip_param": 1.0,
        "size": 4,
        "rate": 1.0,
        "kind": "a",
    }
    run = Fake(by_rate)
    study, tuned = go(plan, tmp_path / "out", TOGETHER, run)
    assert study.trials[0].params == plan.defaults
    first = run.calls[0][0]
    assert first.hyperparameters == {"size": 4, "rate": 1.0, "kind": "a", "other": 3}
    assert first.training == TINY
    assert tuned.default_value == pytest.approx(by_rate(first))


def test_parameters_reach_the_cells_and_come_back_in_the_suite_s_form(searches: str) -> None:
    plan = plan_of(searches)
    chosen = {**plan.defaults, "factor_learning_rate": 0.5, "factor_clip_param": 2.0, "rate": 3.0}
    cell = plan.steps(chosen)[0][0]
    training = cell.training
    assert training.learning_rate == pytest.approx(TINY.learning_rate / 2)
    assert training.clip_param == pytest.approx(TINY.clip_param * 2)
    assert training.entropy_coeff == TINY.entropy_coeff
    assert cell.hyperparameters["rate"] == 3.0
    in_suite = plan.mitigation(chosen)
    assert plan.parameters(in_suite) == chosen
    again = MitigationPlan.model_validate_json(in_suite.model_copy(update={"study": "s"}).model_dump_json())
    suite = two_tasks().model_copy(update={"mitigations": (again,)})
    in_run = cells_of(suite, Selection(), device="cpu", salt_commitment="c")[0]
    assert in_run.training.learning_rate == training.learning_rate
    assert (in_run.selection, in_run.study, in_run.evaluation.selects) == ("validation_shift", "s", None)


def test_what_the_suite_gives_a_mitigation_is_kept(searches: str) -> None:
    factors: dict[Factored, float] = {"learning_rate": 2.0}
    given = MitigationPlan(name=searches, hyperparameters={"size": 2, "other": 7}, factors=factors)
    plan = plan_of(searches, suite=two_tasks().model_copy(update={"mitigations": (given,)}))
    assert plan.defaults["size"] == 2
    assert plan.defaults["factor_learning_rate"] == 2.0
    chosen = {**plan.defaults, "size": 6}
    cell = plan.steps(chosen)[0][0]
    assert cell.hyperparameters == {"size": 6, "rate": 1.0, "kind": "a", "other": 7}
    in_suite = plan.mitigation(chosen)
    assert in_suite.hyperparameters["other"] == 7
    assert plan.parameters(in_suite) == chosen


def test_a_step_is_a_task_and_seed_with_all_rates(tmp_path: Path) -> None:
    steps = plan_of(seeds=2).steps(plan_of().defaults)
    keys = [[(cell.key.seed, cell.key.task, cell.key.alpha) for cell in step] for step in steps]
    assert keys == [[(seed, task, alpha) for alpha in (0.0, 1.0)] for seed in (0, 1) for task in ("corner", "fraud")]
    assert {cell.key.suite for step in steps for cell in step} == {"smoke-tuning-v1"}


def test_the_objective_is_the_mean_score_with_the_gate() -> None:
    cells = [cell for step in plan_of().steps(plan_of().defaults) for cell in step]
    records = [
        result(cells[0], 80.0),
        result(cells[1], 60.0, seen=0.9),
        result(cells[2], 70.0, seen=0.899),  # Fails the gate, and counts with no more than 0.
        result(cells[3], 10.0).model_copy(update={"score": -20.0, "splits": {"in_distribution": split(0.5, 0.0)}}),
    ]
    assert objective(records, "validation_shift") == pytest.approx((80 + 60 + 0 - 20) / 4)
    assert objective(records, "in_distribution") == pytest.approx(100 * (1 + 0.9 + 0.899 + 0.5) / 4)


def test_the_best_trial_is_chosen_and_says_by_what(tmp_path: Path) -> None:
    plan = plan_of()
    study, tuned = go(plan, tmp_path, 3 * TOGETHER, Fake(by_rate))
    values = [trial.value for trial in study.trials if trial.value is not None]
    assert tuned.value == max(values) > tuned.default_value  # type: ignore[operator]
    assert plan.parameters(tuned.plan) == study.best_params
    assert (tuned.plan.name, tuned.plan.selection) == ("none", "validation_shift")
    assert tuned.plan.study == tuned.study == plan.study
    assert MitigationPlan.model_validate(tuned_json(tuned)["plan"]) == tuned.plan
    write_plots(study, tmp_path)
    assert all((tmp_path / name).read_bytes()[1:4] == b"PNG" for name in ("history.png", "importance.png"))


def test_pruned_trials_count_and_their_further_cells_are_not_run(tmp_path: Path) -> None:
    plan, run = plan_of(), Fake(by_rate)
    study, tuned = go(plan, tmp_path, 3 * TOGETHER, run)
    assert len(counted(study)) == tuned.trials == 3 * TOGETHER
    assert 0 < tuned.pruned < 3 * TOGETHER
    pruned = study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert len(pruned) == tuned.pruned
    ran = {cell.cell_id for call in run.calls for cell in call}
    for trial in pruned:
        first, last = plan.steps(trial.params)
        assert {cell.cell_id for cell in first} <= ran
        assert not {cell.cell_id for cell in last} & ran


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    plan, trials = plan_of(), 3 * TOGETHER
    undisturbed, _ = go(plan, tmp_path / "undisturbed", trials, Fake(by_rate))
    for stops_at in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            go(plan, tmp_path / f"stops-{stops_at}", trials, Fake(by_rate, stops_at))
        resumed, tuned = go(plan, tmp_path / f"stops-{stops_at}", trials, Fake(by_rate))
        assert history(resumed) == history(undisturbed)
        assert tuned.trials == trials
        assert any(trial.state == optuna.trial.TrialState.FAIL for trial in resumed.trials)


def test_a_round_of_which_a_part_was_told_is_told_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, trials = plan_of(), 2 * TOGETHER
    undisturbed, _ = go(plan, tmp_path / "undisturbed", trials, Fake(by_rate))
    told, tell = [], optuna.Study.tell

    def killed(study: optuna.Study, *arguments: Any, **options: Any) -> Any:
        told.append(1)
        if len(told) == 3:
            raise KeyboardInterrupt
        return tell(study, *arguments, **options)

    monkeypatch.setattr(optuna.Study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        go(plan, tmp_path / "killed", trials, Fake(by_rate))
    monkeypatch.setattr(optuna.Study, "tell", tell)
    resumed, _ = go(plan, tmp_path / "killed", trials, Fake(by_rate))
    assert history(resumed) == history(undisturbed)
    assert len(resumed.trials) == trials


def test_a_trial_that_waits_since_the_study_was_killed_is_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ask = plan_of(), optuna.Study.ask

    def killed(*_arguments: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "ask", killed)
    with pytest.raises(KeyboardInterrupt):
        go(plan, tmp_path, TOGETHER, Fake(by_rate))
    monkeypatch.setattr(optuna.Study, "ask", ask)
    study, _ = go(plan, tmp_path, TOGETHER, Fake(by_rate))
    assert [trial.params == plan.defaults for trial in study.trials] == [True, False, False, False]


def test_a_damaged_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(RequestError, match=r"study\.db' cannot be read \(DatabaseError\); move it away"):
        open_study(plan_of(), tmp_path)


def test_whole_bounds_of_a_fraction_are_no_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "fraction.py"
    path.write_text(
        "from goalposts import Mitigation\n"
        "class Fraction(Mitigation):\n"
        "    search_space = {'share': {'low': 0, 'high': 1}}\n"
        "    def __init__(self, share=0.5): pass\n"
    )
    plan = plan_of(f"{path}:Fraction")
    study, tuned = go(plan, tmp_path / "out", TOGETHER, Fake(by_rate))
    assert study.trials[0].params == plan.defaults
    assert len({trial.params["share"] for trial in study.trials}) == TOGETHER
    assert tuned.default_value is not None


def test_a_suite_s_own_value_must_be_where_is_searched(searches: str) -> None:
    given = MitigationPlan(name=searches, hyperparameters={"size": 9})
    with pytest.raises(RequestError, match=r"size=9, outside of its search space; widen"):
        plan_of(searches, suite=two_tasks().model_copy(update={"mitigations": (given,)}))


def test_a_finished_study_runs_nothing_and_more_trials_go_on(tmp_path: Path) -> None:
    plan = plan_of()
    go(plan, tmp_path, TOGETHER, Fake(by_rate))
    again = Fake(by_rate)
    go(plan, tmp_path, TOGETHER, again)
    assert again.calls == []
    study, tuned = go(plan, tmp_path, TOGETHER + 1, again)
    assert (len(counted(study)), tuned.trials) == (TOGETHER + 1, TOGETHER + 1)
    assert {cell.cell_id for cell in again.calls[0]} <= {
        cell.cell_id for cell in plan.steps(study.trials[-1].params)[0]
    }


def test_a_failed_trial_counts_and_is_told_of(tmp_path: Path) -> None:
    plan, lines = plan_of(), []
    study = open_study(plan, tmp_path)
    first = {cell.cell_id for step in plan.steps(plan.defaults) for cell in step}

    def run(cells: Sequence[Cell]) -> Mapping[str, Record]:
        failed = {cell.cell_id: record(status="failed", error="loss is nan") for cell in cells if cell.cell_id in first}
        return {cell.cell_id: failed.get(cell.cell_id, result(cell, 50.0)) for cell in cells}

    tuned = tune(plan, study, TOGETHER, run, lines.append)
    assert lines == ["Trial 0 failed and counts as pruned: loss is nan"]
    assert (tuned.trials, tuned.pruned, tuned.default_value) == (TOGETHER, 1, None)


def test_a_study_is_known_by_what_determines_its_course(searches: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {plan_of().study, plan_of(searches).study, plan_of(alphas=(0.0,)).study, plan_of(seeds=2).study}
    ids.add(plan_of(selection="in_distribution").study)
    assert len(ids) == 5
    assert plan_of().study.startswith("smoke-v1/none/validation_shift/")
    monkeypatch.setattr(tuning, "TOGETHER", 8)
    assert plan_of().study not in ids


def test_a_task_without_a_validation_shift_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(make_task("fraud")), "validation", None)
    with pytest.raises(RequestError, match=r"Without a validation shift: fraud\. .*--selection in_distribution"):
        plan_of()
    assert plan_of(selection="in_distribution").steps(plan_of(tasks=("corner",)).defaults)
    assert plan_of(tasks=("corner",)).steps(plan_of(tasks=("corner",)).defaults)


@pytest.mark.parametrize("selection", ["validation_shift", "in_distribution"])
def test_no_test_shift_and_no_evaluation_level_is_looked_at(
    selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object) -> None:
        raise AssertionError("a level of the evaluation was drawn")

    monkeypatch.setattr(Task, "shift_levels", never)
    plan = plan_of(tasks=("fraud",), alphas=(0.0,), selection=selection)
    ((cell,),) = plan.steps(plan.defaults)
    outcome = run_cell(job(cell, tmp_path))
    assert outcome.status == "done", outcome
    found = read(folder_of(cell, tmp_path).record)
    assert set(found.splits) == {"in_distribution", selection}
    assert (found.selection, found.config.evaluation.selects) == (selection, selection)
    assert found.regret is not None
    assert found.splits["in_distribution"].aligned_reference == 1.0
    if selection == "validation_shift":
        assert found.splits[selection].ranked
        assert found.score is not None
    assert objective([found], plan.selection) <= 100


def test_tuning_levels_are_those_of_no_evaluation() -> None:
    task = make_task("corner", size=7, time_limit=14)
    tuned = tuning_set(task, "s", 300, "validation_shift")
    assert tuned.names == ("in_distribution", "validation_shift")
    assert torch.bincount(tuned.split).tolist() == [300, 300]
    assert not bool(tuned.levels.reserved().any())
    evaluated = evaluation_set(task, "s", 300, PUBLIC_SALT)
    assert not set(tuned.levels.hashes().tolist()) & set(evaluated.levels.hashes().tolist())
    apart = task.distinguishing(tuned.levels)
    assert apart[tuned.split == 1].all()
    assert not apart[tuned.split == 0].any()


@pytest.mark.parametrize("name", sorted(registered(MITIGATIONS)))
def test_every_registered_mitigation_can_be_tuned(name: str) -> None:
    plan = plan_of(name)
    assert set(plan.space) == {f"factor_{one}" for one in tuning.FACTORS} | set(load_plugin(name).cls.search_space)
    assert all(plan.space[one]._contains(plan.space[one].to_internal_repr(plan.defaults[one])) for one in plan.space)
