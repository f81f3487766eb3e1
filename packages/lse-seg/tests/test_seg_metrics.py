"""EquE and mIoU by factor: against independent loops, for any batch size and number of processes."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine import ConfigDict
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import METRICS, MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

import lse_seg  # noqa: F401  (puts the placeholder for mmcv's ops in place)
from lse_core.errors import LSEError
from lse_seg.metrics import EquivarianceError, IoUPerScale, as_output

CLASSES = ("background", "one", "two")


def model() -> Any:
    torch.manual_seed(0)
    head = {
        "type": "FCNHead", "in_channels": 32, "in_index": 0, "channels": 8, "num_convs": 1, "num_classes": 3,
        "norm_cfg": {"type": "BN"}, "align_corners": False,
    }  # fmt: skip
    backbone = {
        "type": "ResNetV1c", "depth": 18, "base_channels": 8, "stem_channels": 8, "out_indices": (2,)
    }  # fmt: skip
    config = {
        "type": "EncoderDecoder",
        "backbone": backbone,
        "decode_head": head,
        "test_cfg": {"mode": "whole"},
        "data_preprocessor": {"type": "SegDataPreProcessor", "mean": [120.0] * 3, "std": [60.0] * 3},
    }
    return MODELS.build(ConfigDict(config)).eval()


def items(count: int) -> list[dict[str, Any]]:
    out = []
    for i in range(count):
        g = torch.Generator().manual_seed(i)
        image = torch.randint(0, 256, (3, 5, 6), generator=g, dtype=torch.uint8)
        truth = torch.randint(0, 4, (1, 40, 48), generator=g)
        truth[truth == 3] = 255
        factor = (0.5, 1.0)[i % 2]
        about = {
            "img_path": f"somewhere/{i:02d}_object0_scale_{factor}.png", "ori_shape": (40, 48),
            "img_shape": (40, 48), "local_scale": factor, "base_image": f"{i // 2}",
        }  # fmt: skip
        sample = SegDataSample(gt_sem_seg=PixelData(data=truth), metainfo=about)
        out.append({"inputs": image.repeat_interleave(8, 1).repeat_interleave(8, 2), "data_samples": sample})
    return out


def measure(
    data: Sequence[dict[str, Any]], indices: Sequence[int], size: int, **settings: Any
) -> dict[str, float]:
    """What an evaluation of `data` gives in which this process sees `indices`, `size` at a time."""
    asked = model()
    metrics = [EquivarianceError(**settings), IoUPerScale()]
    metrics[0].ask = asked.test_step
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = {"classes": CLASSES}
    chosen = [data[i] for i in indices]
    with torch.no_grad():
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            batch = {key: [item[key] for item in part] for key in ("inputs", "data_samples")}
            evaluator.process(data_samples=asked.test_step(batch), data_batch=batch)
    found: dict[str, float] = evaluator.evaluate(len(data))
    return found


def one_of_two(rank: int, meeting: str, answer: Any) -> None:
    """Measure five images as one of two processes."""
    torch.set_num_threads(1)  # the threads of the process that forked are not here
    torch.distributed.init_process_group("gloo", f"file://{meeting}", world_size=2, rank=rank)
    data = items(5)
    indices = list(DefaultSampler(data, shuffle=False))
    answer.put((rank, indices, measure(data, indices, 2)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def scope() -> Any:
    init_default_scope("mmseg")
    yield
    DefaultScope._instance_dict.clear()


def curve(knots: Tensor, values: Tensor, u: np.ndarray) -> np.ndarray:
    return np.interp(u, knots[0].double().numpy(), values[0].double().numpy())


def warped(x: Tensor, warp: Any) -> Tensor:
    """S(x)(p) = x(l^-1(p)) by grid_sample in float64, x (C, H, W)."""
    h, w = x.shape[1:]
    u = curve(warp.x.values, warp.x.knots, np.linspace(0, 1, w))
    v = curve(warp.y.values, warp.y.knots, np.linspace(0, 1, h))
    at = np.stack(np.meshgrid(2 * u - 1, 2 * v - 1, indexing="xy"), -1)
    return F.grid_sample(x[None].double(), torch.from_numpy(at)[None], align_corners=True)[0]


@pytest.mark.parametrize("output", ["softmax", "logits"])
@pytest.mark.parametrize("per_element", [True, False])
def test_equivariance_error_is_equation_23(output: str, per_element: bool) -> None:
    data, asked = items(3), model()
    found = measure(data, range(3), 2, draws=2, output=output, per_element=per_element, ratio=3.0)
    metric = EquivarianceError(ratio=3.0)
    errors = []
    with torch.no_grad():
        for item in data:
            (plain,) = asked.test_step({k: [v] for k, v in item.items()})
            for draw in range(2):
                name = Path(item["data_samples"].img_path).name
                warp = metric.warps.draw(1, metric._seed(name, draw))
                (moved,) = asked.test_step(
                    {
                        "inputs": [warped(item["inputs"], warp).float()],
                        "data_samples": [item["data_samples"]],
                    }
                )
                a, b = (x.seg_logits.data.double() for x in (plain, moved))
                if output == "softmax":
                    a, b = a.softmax(0), b.softmax(0)
                difference = (warped(a, warp) - b).square()
                errors.append(float(difference.mean() if per_element else difference.sum()))
    assert found["consistency/EquE"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert found["consistency/EquE"] > 1e-6


def test_an_equivariant_model_has_no_error() -> None:
    """A 1x1 convolution commutes with warps up to rounding; one that looks around does not."""
    image = torch.rand(3, 24, 24)
    torch.manual_seed(0)
    found = {}
    for size in (1, 5):
        layer = torch.nn.Conv2d(3, 3, size, padding=size // 2)

        def ask(batch: dict[str, Any], layer: torch.nn.Module = layer) -> list[SegDataSample]:
            return [SegDataSample(seg_logits=PixelData(data=layer(x))) for x in batch["inputs"]]

        metric = EquivarianceError(output="logits")
        metric.ask = ask
        with torch.no_grad():
            sample = {**ask({"inputs": [image]})[0].to_dict(), "img_path": "a.png"}
        metric.process({"inputs": [image]}, [sample])
        found[size] = metric.evaluate(1)["consistency/EquE"]
    assert found[1] < 1e-10
    assert found[5] > 1e-4


def test_results_do_not_depend_on_batches_or_order() -> None:
    data = items(5)
    first = measure(data, range(5), 1)
    for indices, size in ((range(5), 5), ([3, 1, 4, 0, 2], 2)):
        other = measure(data, indices, size)
        assert other == pytest.approx(first, rel=1e-5)
    assert measure(data, range(5), 5, seed=1)["consistency/EquE"] != pytest.approx(
        first["consistency/EquE"], rel=1e-3
    )


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """Five images on two processes: the sixth, which pads the second one's share, does not count."""
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    running = [
        context.Process(target=one_of_two, args=(rank, str(tmp_path / "meeting"), answer))
        for rank in range(2)
    ]
    for process in running:
        process.start()
    answers = sorted((answer.get(timeout=120) for _ in running), key=lambda each: each[0])
    for process in running:
        process.join(timeout=60)
    assert [process.exitcode for process in running] == [0, 0]
    assert [indices for _, indices, _ in answers] == [[0, 2, 4], [1, 3, 0]]
    alone = measure(items(5), range(5), 5)
    for _, _, found in answers:
        assert found == pytest.approx(alone, rel=1e-5)


# mIoU by factor -------------------------------------------------------------------------------


def samples(count: int, scales: Sequence[float] = (0.5, 1.0, 2.0)) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    out = []
    for i in range(count):
        truth = rng.integers(0, 3, (1, 7, 9))
        found = np.where(rng.random((1, 7, 9)) < 0.6, truth, rng.integers(0, 3, (1, 7, 9)))
        truth[rng.random((1, 7, 9)) < 0.2] = 255
        out.append(
            {
                "gt_sem_seg": {"data": torch.from_numpy(truth)},
                "pred_sem_seg": {"data": torch.from_numpy(found)},
                "local_scale": scales[i % len(scales)],
                "base_image": str(i // len(scales)),
            }
        )
    return out


def naive_miou(chosen: Sequence[dict[str, Any]]) -> float:
    """Over all pixels of all images, one at a time."""
    both, either = [0] * 3, [0] * 3
    for sample in chosen:
        truth, found = (sample[k]["data"].flatten().tolist() for k in ("gt_sem_seg", "pred_sem_seg"))
        for t, p in zip(truth, found, strict=True):
            if t == 255:
                continue
            for c in range(3):
                both[c] += t == c and p == c
                either[c] += t == c or p == c
    shares = [b / e for b, e in zip(both, either, strict=True) if e]
    return 100 * sum(shares) / len(shares)


def test_miou_per_scale_is_that_of_loops_over_pixels() -> None:
    data = samples(9)
    metric = IoUPerScale()
    metric.dataset_meta = {"classes": CLASSES}
    for start in range(0, 9, 2):
        metric.process({}, data[start : start + 2])
    found = metric.evaluate(9)
    per_scale = [naive_miou([s for s in data if s["local_scale"] == k]) for k in (0.5, 1.0, 2.0)]
    names = ["scale/mIoU_0.5", "scale/mIoU_1", "scale/mIoU_2"]
    assert [found[name] for name in names] == pytest.approx(per_scale)
    assert found["scale/mIoU"] == pytest.approx(naive_miou(data))
    assert found["scale/mIoU_mean"] == pytest.approx(np.mean(per_scale))
    assert found["scale/mIoU_std"] == pytest.approx(np.sqrt(np.mean((per_scale - np.mean(per_scale)) ** 2)))
    spreads = [np.std([naive_miou([s]) for s in data if s["base_image"] == b]) for b in "012"]
    assert found["scale/base_std"] == pytest.approx(np.mean(spreads))


def test_miou_agrees_with_mmsegmentation() -> None:
    data = samples(6)
    own, theirs = IoUPerScale(), METRICS.build({"type": "mmseg.IoUMetric"})
    evaluator = Evaluator([own, theirs])
    evaluator.dataset_meta = {"classes": CLASSES}
    evaluator.process(data_samples=data, data_batch={})
    found = evaluator.evaluate(6)
    assert found["scale/mIoU"] == pytest.approx(float(found["mIoU"]), abs=0.006)  # theirs is rounded


def test_ignored_pixels_do_not_count_and_absent_classes_neither() -> None:
    truth, found = torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, 0], found[0, 0] = 255, 1  # wrong, but ignored
    metric = IoUPerScale()
    metric.dataset_meta = {"classes": CLASSES}
    sample = {"gt_sem_seg": {"data": truth}, "pred_sem_seg": {"data": found}, "local_scale": 1.0}
    metric.process({}, [sample])
    assert metric.evaluate(1) == {
        "scale/mIoU": 100.0, "scale/mIoU_1": 100.0, "scale/mIoU_mean": 100.0, "scale/mIoU_std": 0.0
    }  # fmt: skip
    metric = IoUPerScale(ignore_index=0)
    metric.dataset_meta = {"classes": CLASSES}
    metric.process({}, [{**sample, "gt_sem_seg": {"data": torch.ones(1, 4, 4, dtype=torch.long)}}])
    # of sixteen pixels of class 1 four were found, twelve taken for class 0
    assert metric.evaluate(1)["scale/mIoU"] == pytest.approx(100 * (4 / 16 + 0 / 12) / 2)


# what goes wrong ------------------------------------------------------------------------------


def test_missing_meta_information_is_told() -> None:
    metric = IoUPerScale()
    metric.dataset_meta = {"classes": CLASSES}
    with pytest.raises(LSEError, match="add 'local_scale' and 'base_image' to the meta_keys"):
        metric.process({}, [{k: v for k, v in samples(1)[0].items() if k != "local_scale"}])


IMAGE = torch.zeros(3, 4, 4)


@pytest.mark.parametrize(
    ("batch", "ask", "text"),
    [
        ({"inputs": []}, None, r"add dict\(type='EquivarianceHook'\) to custom_hooks"),
        ({"inputs": [[IMAGE]]}, list, "does not support test-time augmentation"),
        ({"inputs": [IMAGE]}, lambda _: [{}], "needs predictions with seg_logits"),
    ],
)
def test_what_the_metric_cannot_do(batch: Any, ask: Any, text: str) -> None:
    metric = EquivarianceError()
    metric.ask = ask
    with pytest.raises(LSEError, match=text):
        metric.process(batch, [{"img_path": "a"}])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"draws": 0}, "draws must be at least 1 and seed 0; got 0 and 0"),
        ({"output": "probabilities"}, "unknown output 'probabilities'"),
        ({"segmets": 4}, "Did you mean 'segments'?"),
    ],
)
def test_wrong_settings_are_told_at_once(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(LSEError) as caught:
        EquivarianceError(**settings)
    assert text in str(caught.value)


def test_probability_of_a_single_class_is_left_as_it_is() -> None:
    x = torch.rand(1, 3, 3)
    assert torch.equal(as_output(x, "softmax"), x)
    assert torch.allclose(as_output(torch.zeros(4, 2, 2), "softmax"), torch.full((4, 2, 2), 0.25))
