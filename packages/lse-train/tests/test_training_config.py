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
    assert config.optim.phases == (Phase("canonicalizer", 1.0), Phase())
    assert config.data.mean == (0.1,)
    assert config.data.split("far") == {"a": 1, "scale": [0.4, 2]}
    assert config.canonicalizer.steps is None
    assert RunConfig.parse(config.plain()) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optin": {}}, "unknown setting 'optin'. Did you mean 'optim'?"),
        ({"optim": {"learning_rate": 1}}, "unknown setting 'optim.learning_rate'"),
        ({"optim": {"layer_decai": 1}}, "Did you mean 'optim.layer_decay'?"),
        ({"batch_size": "many"}, "batch_size must be a whole number; got 'many'"),
        ({"batch_size": True}, "batch_size must be a whole number; got True"),
        ({"optim": {"lr": "fast"}}, "optim.lr must be a finite number; got 'fast'"),
        ({"optim": {"lr": -1}}, "optim.lr must be at least 0; got -1.0"),
        ({"optim": 3}, "optim must hold settings; got 3"),
        ({"optim": {"phases": [{"train": "neither"}]}}, "unknown part 'neither'"),
        ({"model": {"kwargs": {}}}, "the setting model.name is missing"),
        ({"data": {"name": "digits", "std": 0}}, "data.std must be above 0"),
        ({"epochs": 2}, "give either steps or epochs"),
        ({"steps": 0}, "steps or epochs must be above 0"),
        ({"accumulation": 5}, "batch_size 32 must be a multiple of accumulation 5"),
        ({"precision": "float16"}, "unknown precision 'float16'. Did you mean 'bfloat16'?"),
        ({"canonicalizer": {"steps": [3, 2]}}, "1 <= low <= high"),
        ({"augment": {"mixup": -1}}, "augment.mixup and augment.cutmix must be at least 0"),
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
    with pytest.raises(ConfigError, match="is no YAML"):
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
    optim = Optim(warmup=0.2, final=0.0, phases=(Phase("canonicalizer", 1), Phase("backbone", 3)))
    schedule = Schedule(optim, 40)
    factors = [schedule.factor(step) for step in range(40)]
    alone = Optim(warmup=0.2, final=0.0)
    assert factors[:10] == [Schedule(alone, 10).factor(step) for step in range(10)]
    assert factors[10:] == [Schedule(alone, 30).factor(step) for step in range(30)]


def test_phases_follow_their_shares_and_alternate_takes_turns() -> None:
    both = ("backbone", "canonicalizer")
    optim = Optim(phases=(Phase("canonicalizer", 1), Phase("alternate", 2), Phase("both", 1)))
    seen = [parts_at(optim, step, 8, both) for step in range(8)]
    assert seen[:2] == [("canonicalizer",)] * 2
    assert seen[2:6] == [("canonicalizer",), ("backbone",)] * 2
    assert seen[6:] == [both] * 2
    assert parts_at(optim, 0, 8, ("backbone",)) == ()
