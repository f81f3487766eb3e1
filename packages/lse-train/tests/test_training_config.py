"""Settings of training runs: what is accepted, what is refused and in which words."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lse_core.errors import LSEError, UnknownNameError
from lse_train import ConfigError, RunConfig
from lse_train.config import Optim, Phase
from lse_train.objective import parts_at
from lse_train.optimiser import Schedule
from lse_train.reading import differences, override, set_options

LEAST: dict[str, Any] = {"model": "resnet10t", "data": "digits", "steps": 10}


def test_a_few_words_make_a_run_with_the_documented_defaults() -> None:
    config = RunConfig.parse(LEAST)
    assert (config.model.name, config.data.name, config.method.name) == ("resnet10t", "digits", "plain")
    assert (config.optim.canonicalizer_lr, config.optim.canonicalizer_clip, config.optim.clip) == (
        3e-3,
        0.5,
        1.0,
    )
    assert (config.canonicalizer.weight, config.canonicalizer.task_gradient) == (1.0, False)


def test_nested_values_are_read_with_their_types() -> None:
    config = RunConfig.parse(
        {
            **LEAST,
            "optim": {"lr": "1e-3", "warmup": 0, "phases": [{"train": "canonicalizer", "share": 1}, {}]},
            "data": {
                "name": "digits",
                "mean": 0.1,
                "tests": {"far": {"scale": [0.4, 2]}},
                "options": {"a": 1},
            },
            "canonicalizer": {"steps": None},
        }
    )
    assert config.optim.lr == 1e-3  # YAML reads 1e-3 as a text
    assert config.optim.warmup == 0.0
    assert config.optim.phases == (Phase(train="canonicalizer", share=1.0), Phase())
    assert config.data.mean == (0.1,)
    assert config.data.split("far") == {"a": 1, "scale": [0.4, 2]}
    assert config.canonicalizer.steps is None
    assert RunConfig.parse(config.plain()) == config


def test_settings_that_are_gone_are_taken_where_they_change_nothing() -> None:
    earlier = {**LEAST, "accumulation": 1, "validate_every": 0}
    assert RunConfig.parse(earlier) == RunConfig.parse(LEAST)
    assert not {"accumulation", "validate_every"} & RunConfig.parse(earlier).plain().keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optin": {}}, "unknown setting 'optin'. Did you mean 'optim'?"),
        ({"optim": {"learning_rate": 1}}, "optim: unknown setting 'learning_rate'"),
        ({"optim": {"layer_decai": 1}}, "optim: unknown setting 'layer_decai'. Did you mean 'layer_decay'?"),
        ({"batch_size": "many"}, "'batch_size': input should be a valid integer; got 'many'"),
        ({"batch_size": True}, "'batch_size': input should be a valid integer; got True"),
        ({"optim": {"lr": "fast"}}, "'optim.lr': input should be a valid number; got 'fast'"),
        ({"optim": {"lr": -1}}, "'optim.lr': input should be greater than or equal to 0; got -1"),
        ({"optim": 3}, "'optim': input should be a valid dictionary or instance of Optim; got 3"),
        ({"optim": {"phases": [{"train": "neither"}]}}, "unknown part 'neither'"),
        ({"model": {"kwargs": {}}}, "'model.name' is missing"),
        ({"data": {"name": "digits", "std": 0}}, "'data.std.0': input should be greater than 0; got 0"),
        ({"epochs": 2}, "give either steps or epochs"),
        ({"steps": 0}, "'steps': input should be greater than or equal to 1; got 0"),
        ({"data": 5}, "'data': must be a name, or settings as `key: value`; got 5"),
        ({"accumulation": 4}, "the setting accumulation is gone: batches are not added up before a step"),
        ({"validate_every": 7}, "the setting validate_every is gone: the validation set is measured once"),
        ({"optim": {"phases": [{"train": "alternate"}]}}, "train: alternate is gone; give both, or phases"),
        ({"precision": "float16"}, "unknown precision 'float16'. Did you mean 'bfloat16'?"),
        (
            {"canonicalizer": {"steps": [3, 2]}},
            "'canonicalizer': steps must be null or [low, high] with low <= high; got [3, 2]",
        ),
        ({"augment": {"mixup": -1}}, "'augment.mixup': input should be greater than or equal to 0"),
        ({"method": "equivariance", "canonicalizer": {"weight": 0}}, "must be above 0"),
    ],
)
def test_what_is_refused_and_how(change: dict[str, Any], words: str) -> None:
    with pytest.raises(LSEError) as caught:
        RunConfig.parse({**LEAST, **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: resnet10t\ndata: digits\nsteps: 5\noptim: {lr: 1e-2}\n")
    config = RunConfig.read(
        path, set_options(["optim.lr=3e-3", "model.kwargs.in_chans=1", "data.mean=[0.5]"])
    )
    assert (config.optim.lr, config.model.kwargs, config.data.mean) == (3e-3, {"in_chans": 1}, (0.5,))
    with pytest.raises(ConfigError, match=r"cannot read .*none.yaml: No such file"):
        RunConfig.read(tmp_path / "none.yaml")
    path.write_text("a: [1")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        RunConfig.read(path)
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="it holds list"):
        RunConfig.read(path)
    with pytest.raises(ConfigError, match="settings are key=value; got 'seed'"):
        set_options(["seed"])
    with pytest.raises(ConfigError, match=r"cannot set steps.x: steps is 5"):
        override({"steps": 5}, {"steps.x": 1})
    with pytest.raises(UnknownNameError, match="Did you mean 'seed'"):
        RunConfig.parse(override(LEAST, {"sead": 1}))


def test_overrides_leave_their_source_alone_and_differences_name_them() -> None:
    source = {"optim": {"lr": 1, "betas": [1, 2]}, "seed": 0}
    changed = override(source, {"optim.lr": 2, "new.deep": 3})
    assert source == {"optim": {"lr": 1, "betas": [1, 2]}, "seed": 0}
    assert differences(source, changed) == ["new", "optim.lr"]


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_rates_rise_to_the_peak_once_and_end_at_the_share_asked_for(
    steps: int, warmup: float, final: float
) -> None:
    schedule = Schedule(Optim(warmup=warmup, final=final), steps)
    factors = [schedule.factor(step) for step in range(steps)]
    top = factors.index(max(factors))
    assert all(0 < f <= 1 or (f >= 0 and final == 0) for f in factors)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert schedule.factor(steps) == pytest.approx(final) or round(warmup * steps) == steps


def test_every_phase_has_a_rise_and_a_fall_of_its_own() -> None:
    optim = Optim(
        warmup=0.2,
        final=0.0,
        phases=(Phase(train="canonicalizer", share=1), Phase(train="backbone", share=3)),
    )
    schedule = Schedule(optim, 40)
    factors = [schedule.factor(step) for step in range(40)]
    alone = Optim(warmup=0.2, final=0.0)
    assert factors[:10] == [Schedule(alone, 10).factor(step) for step in range(10)]
    assert factors[10:] == [Schedule(alone, 30).factor(step) for step in range(30)]


def test_phases_follow_their_shares() -> None:
    both = ("backbone", "canonicalizer")
    phases = [{"train": "canonicalizer"}, {"train": "backbone", "share": 2}, {}]
    optim = RunConfig.parse({**LEAST, "optim": {"phases": phases}}).optim
    seen = [parts_at(optim, step, 8, both) for step in range(8)]
    assert seen[:2] == [("canonicalizer",)] * 2
    assert seen[2:6] == [("backbone",)] * 4
    assert seen[6:] == [both] * 2
    assert parts_at(optim, 0, 8, ("backbone",)) == ()
