"""timm models from names and keywords that come from anywhere."""

import sys

import pytest

from lse_core.errors import LSEError, UnknownNameError
from lse_core.timm_models import check_keywords, make, timm_keywords

pytest.importorskip("timm")
SMALL = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": [32, 32], "num_classes": 3}


def test_a_model_is_made_from_plain_values():
    model = make("vit_tiny_patch16_224", SMALL)
    assert model.num_classes == 3
    assert model.patch_embed.img_size == (32, 32)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf-hub:someone/model", "names with a scheme or a path are not followed"),
        ("../model", "names with a scheme or a path are not followed"),
        ("vit_tinny_patch16_224", "Did you mean 'vit_tiny_patch16_224'"),
    ],
)
def test_a_name_that_timm_does_not_list_is_refused(name, words):
    with pytest.raises(UnknownNameError, match=words):
        make(name, {})


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"scriptable": True}, "'scriptable', which is not among those"),
        ({"depht": 3}, "did you mean 'depth'"),
        ({"img_size": "../x"}, "must be a number to 100,000, a word or a list"),
        ({"depth": 1e9}, "must be a number to 100,000"),
    ],
)
def test_keywords_that_could_do_more_than_describe_need_trust(kwargs, words):
    with pytest.raises(LSEError, match=rf"{words}.*--trust"):
        make("vit_tiny_patch16_224", kwargs)


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained", "pretrained_cfg"])
def test_keywords_that_fetch_are_refused_even_with_trust(key):
    with pytest.raises(LSEError, match="would read weights from elsewhere"):
        make("vit_tiny_patch16_224", {key: "x"}, trust=True)
    assert key not in timm_keywords()


def test_what_a_constructor_raises_is_one_line():
    with pytest.raises(LSEError, match=r"timm cannot make the model 'resnet18': TypeError") as caught:
        make("resnet18", {"no_such_keyword": 1}, trust=True)
    assert "\n" not in str(caught.value)


def test_keywords_of_ones_own_may_be_allowed():
    check_keywords("mine", {"colour": "red"}, known=["colour"])


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LSEError, match="pip install timm"):
        make("resnet18", {})
