"""Modes of modules given back, and progress where nothing can be redrawn."""

import pytest
from torch import nn

from lse_core.modes import evaluating, modes_kept
from lse_core.progress import Bars


def test_every_module_ends_in_the_mode_it_began_in() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    model[0].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]
    with pytest.raises(TypeError), modes_kept(model):
        model.eval()(None)
    assert [module.training for module in model.modules()] == [True, False, True]


def test_a_line_for_each_tenth_where_no_bar_can_be_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        bar = bars.add("steps", 20, lines=True)
        silent = bars.add("quiet", 20)
        for _ in range(20):
            bar.advance()
            silent.advance()
        bar.restart("[more]")
        bar.update(5, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [*(f"steps: {n} of 20" for n in range(2, 21, 2)), "[more]: 5 of 5"]


def test_nothing_at_all_where_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(hidden=True) as bars:
        bars.add("steps", lines=True).update(3, 3)
        bars.line("a line")
    assert capsys.readouterr() == ("", "")
