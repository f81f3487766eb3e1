"""What training runs are made of, each on its own."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from lse_core.card import attach
from lse_core.errors import DataError, LSEError, UnknownNameError
from lse_core.preprocess import Preprocess
from lse_core.separable import SeparableWarp
from lse_dec import adapt
from lse_dec.losses import canonicalizer_equivariance_loss, warp_distance
from lse_dec.monitor import displacement
from lse_train import Batch, ConfigError
from lse_train.augmentation import Augmentation
from lse_train.config import Augment, Canonicalizer, Data, Method, Optim, Phase
from lse_train.log import RunLog
from lse_train.methods import Equivariance, Plain, make_method
from lse_train.objective import Objective, Task
from lse_train.optimiser import Schedule, clip, make_optimiser
from lse_train.sources import Feed, Order, Source, collate, preprocess_for

CPU = torch.device("cpu")


class Stored:
    """A data set held in memory: image i is filled with i, its label is i modulo 10."""

    def __init__(self, n: int) -> None:
        self.images = (
            (torch.arange(n) % 256).to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 16, 16).contiguous()
        )
        self.labels = torch.arange(n) % 10

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.images[item].float() / 255, int(self.labels[item])


class Items:
    """The same items without tensors to take them from."""

    def __init__(self, n: int) -> None:
        self.stored = Stored(n)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.stored[item]


class Endless:
    """Draws images anew, as earlier versions took it."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.rand(n, 1, 16, 16, generator=generator), torch.arange(n) % 10


def small(**change: Any) -> Any:
    return timm.create_model(
        "resnet10t", in_chans=1, num_classes=10, channels=(8, 8, 8, 8), stem_width=8, **change
    )


def adapted(**change: Any) -> Any:
    torch.manual_seed(0)
    options: dict[str, Any] = {"rule": "compose", "projection": 4, "widths": (8,), "segments": 4, **change}
    model = adapt(small(), ["image", "layer2"], **options)
    for parameter in model.canonicalizer_parameters():  # away from the identity
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch_of(n: int = 6, step: int = 0, total: int | None = None, rows: Tensor | None = None) -> Batch:
    images = torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(step))
    labels = torch.arange(n) % 10
    rows = torch.arange(n) if rows is None else rows
    return Batch(images, images, labels, labels, rows, n if total is None else total, step)


def test_every_image_comes_once_before_any_comes_again() -> None:
    order = Order(total=10, batch_size=4, seed=3)
    flat = torch.cat([order.step(step) for step in range(5)])
    assert flat[:10].sort().values.tolist() == flat[10:].sort().values.tolist() == list(range(10))
    assert flat[:10].tolist() != flat[10:].tolist()
    # a step asked for out of order is the same step
    assert Order(10, 4, 3).step(3).tolist() == flat[12:16].tolist()
    assert Order(10, 4, 4).step(0).tolist() != flat[:4].tolist()
    assert torch.cat([Order(3, 8, 0).step(s) for s in range(3)]).bincount().tolist() == [8, 8, 8]


@pytest.mark.parametrize(("kind", "workers"), [(Stored, 0), (Items, 0), (Items, 1)])
def test_sources_give_the_same_images_however_they_are_held(kind: Any, workers: int) -> None:
    source = Source(kind(20), "it", workers=workers)
    (images, labels), (last, _) = source.read([torch.tensor([3, 19]), torch.tensor([7])], CPU)
    assert labels.tolist() == [3, 9]
    torch.testing.assert_close(images[:, 0, 0, 0] * 255, torch.tensor([3.0, 19.0]))
    torch.testing.assert_close(last[0, 0, 0, 0] * 255, torch.tensor(7.0))


def test_sources_refuse_what_is_none() -> None:
    with pytest.raises(DataError, match="data set 'x' is empty"):
        Source(Stored(0), "data set 'x'")
    with pytest.raises(DataError, match="it needs a length and items"):
        Source(object(), "data set 'x'")
    with pytest.raises(DataError, match="by `sample` are no longer taken"):
        Source(Endless(), "data set 'x'")
    with pytest.raises(DataError, match="differ in shape"):
        collate([torch.zeros(1, 8, 8), torch.zeros(1, 9, 8)])
    assert collate([torch.zeros(1, 8, 8)])[1].tolist() == [-1]


def test_normalisation_takes_what_is_given_then_the_data_sets_then_the_models() -> None:
    data, model = Stored(1), small()
    grey, colour = torch.zeros(1, 1, 24, 32), torch.zeros(1, 3, 24, 32)

    def numbers(image: Tensor, *given: Any) -> tuple[Any, Any]:
        found = preprocess_for(image, data, model, *given)
        assert (found.channels, found.size) == (image.shape[1], (24, 32))
        return found.mean, found.std

    assert numbers(grey) == ((0.5,), (0.5,))
    assert numbers(colour) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data.mean, data.std = 0.1, (0.3,)  # type: ignore[attr-defined]
    assert numbers(colour) == ((0.1,) * 3, (0.3,) * 3)
    assert numbers(grey, (0.2,), None) == ((0.2,), (0.3,))
    with pytest.raises(LSEError, match="2 numbers for images of 1 channels"):
        numbers(grey, (0.2, 0.3), None)
    # a model that was trained already knows best, and so does the data set of its own pictures' geometry
    attach(model, preprocess=Preprocess(channels=1, size=(8, 8), crop_pct=0.7, mean=(0.6,), std=(0.7,)))
    assert numbers(grey) == ((0.6,), (0.7,))
    assert numbers(colour) == ((0.1,) * 3, (0.3,) * 3)
    assert preprocess_for(grey, data, model).crop_pct == 0.7
    data.preprocess = Preprocess(channels=1, size=(9, 9), crop_pct=0.9, mean=(0.0,), std=(1.0,))  # type: ignore[attr-defined]
    assert preprocess_for(grey, data, model).crop_pct == 0.9
    assert numbers(grey) == ((0.6,), (0.7,))


def grey(mean: float, std: float) -> Preprocess:
    return Preprocess(channels=1, size=(16, 16), mean=(mean,), std=(std,))


EVERYTHING = Augment(warp_ratio=2.0, mixup=0.4, cutmix=1.0, erasing=0.7, label_smoothing=0.1)


@pytest.mark.parametrize("settings", [Augment(), EVERYTHING, Augment(mixup=0.5), Augment(erasing=1.0)])
def test_parts_of_a_batch_are_what_they_would_be_in_the_whole(settings: Augment) -> None:
    def batches(rank: int, world: int) -> list[Batch]:
        augment = Augmentation(settings, grey(0.5, 0.5), 10, 5)
        feed = Feed(Source(Stored(30), "it"), augment, 8, rank, world, CPU)
        return [batch for _, batch in feed.steps(1, 3)]

    whole = batches(0, 1)
    assert [batch.step for batch in whole] == [1, 2]
    for rank in range(4):
        for one, part in zip(whole, batches(rank, 4), strict=True):
            assert part.step == one.step
            assert len(part.images) == 2
            for name in ("images", "plain", "labels", "targets"):
                assert torch.equal(getattr(part, name), getattr(one, name)[part.rows]), name


def test_augmentation_does_what_it_says() -> None:
    images, labels = torch.rand(8, 1, 16, 16), torch.arange(8)
    rows = torch.arange(8)

    def made(step: int = 0, **settings: Any) -> Batch:
        augment = Augmentation(Augment(**settings), grey(0.5, 0.25), 10, 0)
        needed = augment.rows(rows, 8)
        return augment(images[needed].clone(), labels[needed], rows, 8, step)

    plain = made()
    assert torch.equal(plain.images, (images - 0.5) / 0.25)
    assert torch.equal(plain.targets, labels)
    # mixing: each image and target is the same mixture of itself and its mirror in the batch
    mixed = made(mixup=1.0)
    share = mixed.targets[0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed.images, share * plain.images + (1 - share) * plain.images.flip(0))
    torch.testing.assert_close(mixed.targets[1], share * torch.eye(10)[1] + (1 - share) * torch.eye(10)[6])
    assert torch.equal(mixed.plain, plain.images)
    smooth = made(label_smoothing=0.1).targets
    torch.testing.assert_close(smooth, torch.full((8, 10), 0.01) + 0.9 * torch.eye(10)[labels])
    erased = made(erasing=1.0).images
    assert all((image == 0).sum() > 3 for image in erased)
    # different images, different warps; different steps, different warps
    warped = made(warp_ratio=2.0).images
    assert not torch.allclose(warped, plain.images)
    assert not torch.equal(warped, made(1, warp_ratio=2.0).images)
    assert torch.equal(warped, made(0, warp_ratio=2.0).images)


def test_drawing_for_too_few_images_is_refused() -> None:
    with pytest.raises(LSEError, match="draw for all 6 images"):
        batch_of().share(torch.zeros(3))


def gradients(objective: Objective, parts: tuple[str, ...], batch: Batch) -> dict[str, float]:
    objective.zero_grad()
    objective.set_modes(parts)
    losses = objective(Task(batch, parts))
    torch.stack(list(losses.values())).sum().backward()
    return {
        part: sum(float(p.grad.abs().sum()) for p in members if p.grad is not None)
        for part, members in objective.members.items()
    }


def test_each_part_learns_from_its_own_loss() -> None:
    both = ("backbone", "canonicalizer")
    objective = Objective(adapted(), Plain(), Canonicalizer(), 0)
    assert objective.available == both
    batch = batch_of()
    found = gradients(objective, both, batch)
    assert min(found.values()) > 0
    own = [p.grad.clone() for p in objective.members["canonicalizer"] if p.grad is not None]
    # the canonicalizers' gradient is Eq. 5's alone: the task's weight does not show in it
    batch.targets[:] = 9
    gradients(objective, both, batch)
    again = [p.grad for p in objective.members["canonicalizer"] if p.grad is not None]
    for one, other in zip(own, again, strict=True):
        torch.testing.assert_close(one, other)
    # and the backbone's is the task's alone
    backbone = [p.grad.clone() for p in objective.members["backbone"] if p.grad is not None]
    objective.settings = Canonicalizer(weight=7.0)
    gradients(objective, both, batch)
    for one, p in zip(
        backbone, (p for p in objective.members["backbone"] if p.grad is not None), strict=True
    ):
        torch.testing.assert_close(one, p.grad)


def test_the_papers_way_lets_the_tasks_gradient_through() -> None:
    objective = Objective(adapted(), Plain(), Canonicalizer(weight=0.0, task_gradient=True), 0)
    assert list(objective(Task(batch_of(), objective.available))) == ["task"]
    assert min(gradients(objective, objective.available, batch_of()).values()) > 0
    without = Objective(adapted(), Plain(), Canonicalizer(weight=0.0), 0)
    assert without.available == ("backbone",)
    assert gradients(without, ("backbone",), batch_of())["canonicalizer"] == 0


def test_a_part_that_rests_is_left_as_it_is_with_its_statistics() -> None:
    objective = Objective(adapted(), Plain(), Canonicalizer(), 0)
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    found = gradients(objective, ("canonicalizer",), batch_of())
    assert found["backbone"] == 0 < found["canonicalizer"]
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())
    assert all(p.requires_grad for p in objective.parameters())
    found = gradients(objective, ("backbone",), batch_of())
    assert found["canonicalizer"] == 0 < found["backbone"]
    changed = [k for k, v in objective.state_dict().items() if not torch.equal(v, before[k])]
    assert changed
    assert all("running" in k or "num_batches" in k for k in changed)


def test_equivariance_loss_is_eq_5_at_every_site_on_what_enters_it() -> None:
    model = adapted()
    settings = Canonicalizer(steps=(4, 4), segments=3, ratio=2.0, prior=0.25)
    objective = Objective(model, Equivariance(), settings, 11)
    assert objective.available == ("canonicalizer",)
    batch = batch_of()
    objective.set_modes(("canonicalizer",))
    losses = objective(Task(batch, ("canonicalizer",)))
    assert list(losses) == ["equivariance/image", "equivariance/layer2"]
    seen: dict[str, Tensor] = {}
    hooks = [
        site.canonicalizer.register_forward_pre_hook(lambda m, args, n=name: seen.update({n: args[0]}))
        for name, site in model.sites.items()
    ]
    with torch.no_grad():
        model(batch.images)
    for hook in hooks:
        hook.remove()
    from lse_train.seeding import generator

    source = generator(11, "equivariance", 0)
    torch.randint(4, 5, (), generator=source)
    g = batch.random_warp(source, 2.0, 3)
    for name, site in model.sites.items():
        expected = canonicalizer_equivariance_loss(site.canonicalizer, seen[name], g, steps=4, prior=0.25)
        torch.testing.assert_close(losses[f"equivariance/{name}"], expected)


def test_equivariance_of_parts_averages_to_that_of_the_whole() -> None:
    objective = Objective(adapted(), Equivariance(), Canonicalizer(), 0)
    whole = batch_of(8)
    total = objective(Task(whole, ("canonicalizer",)))["equivariance/image"]
    parts = []
    for rows in torch.arange(8).view(4, 2):
        images = whole.images[rows]
        part = Batch(images, images, whole.labels[rows], whole.targets[rows], rows, 8, 0)
        parts.append(objective(Task(part, ("canonicalizer",)))["equivariance/image"])
    torch.testing.assert_close(torch.stack(parts).mean(), total, rtol=1e-5, atol=1e-6)


def test_a_logged_step_tells_what_its_own_pass_found_and_runs_no_canonicalizer_again() -> None:
    model = adapted()
    objective = Objective(model, Plain(), Canonicalizer(weight=0.0, task_gradient=True), 0)
    answers: dict[str, list[Any]] = {name: [] for name in model.sites}
    for name, site in model.sites.items():
        site.canonicalizer.register_forward_hook(lambda m, args, out, n=name: answers[n].append(out))
    found = objective(Task(batch_of(), objective.available, watched=True))
    assert {name: len(given) for name, given in answers.items()} == {"image": 1, "layer2": 1}
    for name, (answer,) in answers.items():
        told = found[f"log/{name}/displacement"]
        assert float(told) == pytest.approx(float(displacement(answer).mean())) != 0
    assert "log/image/displacement" not in objective(Task(batch_of(), objective.available))


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="trains canonicalizers, and the model has none"):
        Objective(small(), Equivariance(), Canonicalizer(), 0)


def test_optimiser_groups_and_rates() -> None:
    model = adapted()
    objective = Objective(model, Plain(), Canonicalizer(), 0)
    optim = Optim(lr=1.0, canonicalizer_lr=0.1, layer_decay=0.5, warmup=0.0, weight_decay=0.3)
    optimiser = make_optimiser(model, optim, objective.members, objective.available)
    rates = Schedule(optim, 10).apply(optimiser, 0)
    assert rates == {"lr/backbone": 1.0, "lr/canonicalizer": 0.1}
    assert {id(p) for g in optimiser.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    by_parameter = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    base = model.base
    assert by_parameter[id(base.fc.weight)]["lr"] == 1.0
    assert by_parameter[id(base.fc.bias)]["weight_decay"] == 0.0
    first, later = by_parameter[id(base.conv1[0].weight)], by_parameter[id(base.layer4[0].conv1.weight)]
    assert first["lr"] < later["lr"] < 1.0
    assert first["weight_decay"] == 0.3
    assert {by_parameter[id(p)]["lr"] for p in model.canonicalizer_parameters()} == {0.1}


def test_gradients_are_bounded_part_by_part() -> None:
    members = {name: [nn.Parameter(torch.zeros(4))] for name in ("backbone", "canonicalizer")}
    for (parameter,) in members.values():
        parameter.grad = torch.full((4,), 5.0)
    norms = clip(members, ("backbone", "canonicalizer"), Optim(clip=0.0, canonicalizer_clip=0.5))
    assert {name: float(norm) for name, norm in norms.items()} == {
        "gradient/backbone": 10.0,
        "gradient/canonicalizer": 10.0,
    }
    assert float(members["backbone"][0].grad.norm()) == 10.0  # type: ignore[union-attr]
    assert float(members["canonicalizer"][0].grad.norm()) == pytest.approx(0.5)  # type: ignore[union-attr]


def test_methods_by_name() -> None:
    assert isinstance(make_method(Method(name="plain")), Plain)
    assert type(make_method(Method(name="invl", options={"weight": 2.0}))).__name__ == "InvL"
    # a class that a plugin provides may be named by its place too; others are imported with trust alone
    assert isinstance(make_method(Method(name="lse_train.methods:Plain")), Plain)
    own = Method(name="lse_train.config:Phase")
    assert isinstance(make_method(own, trust=True), Phase)
    with pytest.raises(ConfigError, match="which would be imported and called: if you trust"):
        make_method(own)
    with pytest.raises(UnknownNameError, match="Did you mean 'plain'"):
        make_method(Method(name="plane"))
    with pytest.raises(UnknownNameError, match="unknown setting of Plain 'weight'"):
        make_method(Method(name="plain", options={"weight": 1}))
    with pytest.raises(ConfigError, match="method 'nowhere:Plain': cannot import 'nowhere' \\(No module"):
        make_method(Method(name="nowhere:Plain"), trust=True)
    with pytest.raises(ConfigError, match=r"'lse_train.methods' has no 'Plane'"):
        make_method(Method(name="lse_train.methods:Plane"), trust=True)


def test_the_log_drops_rows_behind_the_checkpoint_and_grows_columns(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.add(1, {"a": 0.1})
        log.add(2, {"a": 0.2, "b": 1 / 3})
        log.add(3, {"b": 3})
    whole = (tmp_path / "metrics.csv").read_bytes()
    assert whole.decode().split() == ["step,a,b", "1,0.1,", "2,0.2,0.333333333", "3,,3"]
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,0.")  # a kill in the middle of a line
    with RunLog(tmp_path, 2) as log:
        log.add(3, {"b": 3})
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_splits_and_warps_by_name() -> None:
    data = Data(name="digits", options={"a": 1}, train={"a": 2}, tests={"far": {}})
    assert data.split("train") == {"a": 2}
    assert data.split("val") == {"a": 1}
    with pytest.raises(UnknownNameError, match="Did you mean 'far'"):
        data.split("fur")
    g = batch_of(5).random_warp(torch.Generator().manual_seed(0), 2.0, 4)
    assert g.batch == 5
    assert float(warp_distance(g, SeparableWarp.identity(5)).min()) > 0
    assert Phase().train == "both"
