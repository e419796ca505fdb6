"""The layer: every arithmetic is the reference up to the rounding of sums."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from everview.errors import ConfigError
from everview.quantization import arithmetic, linear
from everview.quantization.arithmetic import (
    ARITHMETICS,
    OneDnnProduct,
    float8_product,
    padded_sums,
    pick,
    reference_product,
    why_not,
)
from everview.quantization.grids import ClipFactors
from everview.quantization.hadamard import Rotation
from everview.quantization.linear import QuantizedLinear
from everview.quantization.smoothing import InputTransform
from everview.quantization.spec import LinearSpec, parse_scheme

CPU = torch.device("cpu")
INTEGER = [
    ("w8a8", "int8_onednn"), ("w8a8", "int8_mm"), ("w8a8", "reference"),
    ("w4a8", "int4_int8_mm"), ("w4a4", "int4_int8_mm"), ("w4a4", "reference"),
]  # fmt: skip
ROUNDED = [*INTEGER, ("fp8", "reference")]


def needs(name, scheme):
    reason = why_not(ARITHMETICS[name], parse_scheme(scheme), CPU)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")


def make(scheme, width=96, out=40, *, bias=True, clip=False, seed=0, **options):
    torch.manual_seed(seed)
    rotation = Rotation.random(width, torch.Generator().manual_seed(seed), largest=32)
    transform = InputTransform(before=torch.rand(width) + 0.5, rotation=rotation)
    factors = ClipFactors(torch.tensor([0.9]), torch.tensor([0.8])) if clip else None
    weight = torch.randn(out, width) / width**0.5
    bias = torch.randn(out) if bias else None
    layer = QuantizedLinear.of(
        weight, bias, parse_scheme(scheme), transform, activation_clip=factors, **options
    )
    return layer, weight, bias


@pytest.mark.parametrize(("scheme", "name"), ROUNDED)
@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("clip", [False, True])
def test_integers_give_what_the_reference_gives(scheme, name, rows, clip):
    needs(name, scheme)
    layer, *_ = make(scheme, clip=clip)
    layer.execute_with(name)
    assert layer.arithmetic.name == name
    x = 3 * torch.randn(rows, 96)
    exact = layer.reference(x.double())
    torch.testing.assert_close(layer(x), layer.reference(x), rtol=2e-6, atol=2e-6)
    # levels may differ from float64's where a value lies on the edge of two; outputs hardly
    assert float((layer(x) - exact).norm() / exact.norm()) < 1e-3


@pytest.mark.parametrize(("scheme", "name"), INTEGER)
def test_sums_are_exact_at_the_largest_magnitude(scheme, name):
    needs(name, scheme)
    layer = QuantizedLinear(4096, 8, parse_scheme(scheme))
    bits = layer.spec
    weight = torch.full((8, 4096), -(1 << (bits.weight_bits - 1)), dtype=torch.int8)
    layer.take_levels(weight, torch.ones(8, 1))
    layer.execute_with(name)
    top = (1 << (bits.activation_bits - 1)) - 1
    x = torch.full((5, 4096), float(top))
    assert (layer(x) == float(top * 4096 * int(weight[0, 0]))).all()


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4", "w8a16", "w4a16", "fp8"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_stands_for_the_float_one(scheme, bias):
    layer, weight, b = make(scheme, width=128, bias=bias)
    layer.execute_with(require_real=False)
    x = torch.randn(2, 30, 128)
    y = nn.functional.linear(x, weight, b)
    error = float((layer(x) - y).norm() / y.norm())
    assert error < {"w8a8": 0.02, "w4a8": 0.15, "w4a4": 0.25, "w8a16": 0.02, "w4a16": 0.15,
                    "fp8": 0.05}[scheme]  # fmt: skip
    assert error > 1e-4  # it does round
    assert layer(x).shape == y.shape
    torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scheme", "name"), ROUNDED)
def test_tokens_do_not_influence_each_other(scheme, name):
    needs(name, scheme)
    layer = make(scheme)[0].execute_with(name)
    x = torch.randn(150, 96)
    x[3] *= 1e4
    parts = torch.cat([layer(x[:1]), layer(x[1:70]), layer(x[70:])])
    torch.testing.assert_close(parts, layer(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scheme", "name"), ROUNDED)
def test_portions_give_what_the_whole_gives(scheme, name, monkeypatch):
    needs(name, scheme)
    layer = make(scheme)[0].execute_with(name)
    x = torch.randn(150, 96)
    whole = layer(x)
    monkeypatch.setattr(linear, "FLOATS_AT_ONCE", 96 * 7)
    monkeypatch.setattr(arithmetic, "SUMS_AT_ONCE", 40 * 11)
    torch.testing.assert_close(layer(x), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scheme", "name"), ROUNDED)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_token_stays_visible_and_alone(scheme, name, bad):
    needs(name, scheme)
    layer = make(scheme)[0].execute_with(name)
    x = torch.randn(5, 96)
    good = layer(x)
    x[2, 4] = bad
    y = layer(x)
    assert not y[2].isfinite().any()
    assert torch.equal(y[[0, 1, 3, 4]], good[[0, 1, 3, 4]])


def test_signed_tokens_cannot_reach_onednn():
    needs("int8_onednn", "w8a8")
    product = OneDnnProduct(torch.ones(4, 8, dtype=torch.int8), torch.ones(4))
    with pytest.raises(AssertionError, match="reference kernel"):
        product.multiply(torch.ones(2, 8, dtype=torch.int8))
    assert (product(torch.full((2, 8), -3, dtype=torch.int8)) == -24).all()


@pytest.mark.parametrize(("width", "out"), [(64, 32), (50, 21), (192, 100)])
def test_8_bit_floats_by_the_kernel_of_gpus(width, out):
    """`torch._scaled_mm` runs on a CPU too, emulated; widths that CUDA refuses are filled up."""
    torch.manual_seed(1)
    levels = (100 * torch.randn(7, width)).clamp(-448, 448).to(torch.float8_e4m3fn)
    weight = (100 * torch.randn(out, width)).clamp(-448, 448).to(torch.float8_e4m3fn)
    step = torch.rand(out) + 0.1
    found = float8_product(levels, weight, step)
    exact = levels.double() @ weight.double().T * step.double()
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(reference_product(levels, weight, step).double(), exact)


def test_8_bit_floats_are_those_of_the_grid():
    """Every value that 8 bits can say is its own level, what lies between goes to the nearest."""
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    every = every[every.isfinite()].unique()
    grid = parse_scheme("fp8").weight_grid
    assert torch.equal(grid.round_(every.clone()), every)
    x = torch.linspace(-500, 500, 4001)
    nearest = (x[:, None] - every).abs().amin(1)
    assert torch.equal((grid.round_(x.clone()) - x).abs(), nearest)


def test_padding_for_cuda_changes_nothing():
    levels = torch.randint(-127, 128, (3, 50), dtype=torch.int8)
    weight = torch.randint(-127, 128, (21, 50), dtype=torch.int8)
    assert torch.equal(padded_sums(levels, weight), levels.int() @ weight.int().T)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a16"])
def test_no_float_weight_is_kept(scheme):
    layer = make(scheme, width=256, out=512)[0].execute_with()
    floats = [t for t in vars(layer).values() if isinstance(t, torch.Tensor)]
    floats += list(layer.buffers()) + list(layer.parameters())
    for tensor in floats:
        if tensor.is_floating_point():
            assert tensor.numel() <= 512 * 256 / 32
    assert layer.weight_levels().dtype == torch.int8
    stored = sum(t.numel() * t.element_size() for t in layer.state_dict().values())
    assert stored < 512 * 256 * (0.65 if scheme.startswith("w4") else 1.1)


@pytest.mark.parametrize(("scheme", "name"), [("w8a8", "int8_onednn"), ("w4a8", "int4_int8_mm")])
def test_integers_survive_a_change_of_arithmetic(scheme, name):
    needs(name, scheme)
    layer = make(scheme)[0]
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.execute_with(name)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key
    layer.to(torch.float64).float()
    assert layer.arithmetic.name == name
    assert layer.step.dtype == torch.float32
    layer.execute_with("reference")
    assert torch.equal(layer.levels, before["levels"])


@pytest.mark.parametrize(("scheme", "name"), ROUNDED)
def test_layers_can_be_copied_and_pickled(scheme, name):
    needs(name, scheme)
    layer = make(scheme)[0].execute_with(name)
    x = torch.randn(5, 96)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.arithmetic is layer.arithmetic
        assert torch.equal(twin(x), layer(x))
        assert twin.state_dict().keys() == layer.state_dict().keys()
    assert layer.arithmetic.name == name


def test_what_cannot_run_says_why(monkeypatch):
    spec = parse_scheme("w8a8")
    with pytest.raises(ConfigError, match="int4_int8_mm cannot run w8a8 on cpu: weights have 8"):
        pick(spec, CPU, wanted="int4_int8_mm")
    with pytest.raises(ConfigError, match="'int9' is unknown; use reference"):
        pick(spec, CPU, wanted="int9")
    monkeypatch.setattr(arithmetic, "has_integer_units", lambda: False)
    assert pick(spec, CPU).name == "reference"
    with pytest.raises(ConfigError, match=r"w8a8 can only be simulated on cpu.*no VNNI"):
        pick(spec, CPU, require_real=True)
    with pytest.raises(ConfigError, match="simulated"):
        pick(spec, torch.device("mps"), require_real=True)
    assert pick(parse_scheme("w4a16"), CPU, require_real=True).name == "weight_only"
    assert pick(parse_scheme("fp8"), CPU).name == "reference"
    with pytest.raises(ConfigError, match=r"fp8 can only be simulated on cpu.*emulated"):
        pick(parse_scheme("fp8"), CPU, require_real=True)
    with pytest.raises(ConfigError, match="fp8_scaled_mm cannot run w8a8 on cpu: levels are int"):
        pick(spec, CPU, wanted="fp8_scaled_mm")


@pytest.mark.parametrize(
    ("capability", "kernel"),
    [((9, 0), "fp8_scaled_mm"), ((8, 9), "fp8_scaled_mm"), ((8, 0), "reference")],
)
def test_8_bit_floats_are_real_from_ada_on(capability, kernel, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    spec, cuda = parse_scheme("fp8"), torch.device("cuda")
    assert pick(spec, cuda).name == kernel
    if kernel == "reference":
        with pytest.raises(ConfigError, match="older than Ada"):
            pick(spec, cuda, require_real=True)
    assert pick(parse_scheme("w8a8"), cuda).name == "int8_mm"
    assert pick(parse_scheme("w4a4"), cuda).name == "int4_int8_mm"


def test_a_damaged_weight_is_refused():
    weight = torch.ones(4, 8)
    weight[1, 1] = torch.nan
    with pytest.raises(ConfigError, match="not finite"):
        QuantizedLinear.of(weight, None, LinearSpec(weight_bits=8, activation_bits=8))


def test_searching_helps_4_bit_weights():
    torch.manual_seed(2)
    weight, x = torch.randn(64, 128) ** 3, torch.randn(100, 128)
    y = x @ weight.T

    def error(**options):
        layer = QuantizedLinear.of(weight, None, parse_scheme("w4a8"), **options)
        return float((layer(x) - y).norm() / y.norm())

    assert error(rounding="search") < 0.95 * error()


COMPILED = """
import torch
from everview.quantization.hadamard import Rotation
from everview.quantization.linear import QuantizedLinear
from everview.quantization.smoothing import InputTransform
from everview.quantization.spec import parse_scheme

torch.manual_seed(0)
for scheme, name in {pairs}:
    transform = InputTransform(before=torch.rand(128) + 0.5, rotation=Rotation(None, 32))
    layer = QuantizedLinear.of(
        torch.randn(64, 128), torch.randn(64), parse_scheme(scheme), transform
    ).execute_with(name)
    x = torch.randn(50, 128)
    with torch.no_grad():
        assert torch.equal(torch.compile(layer)(x), layer(x)), name
"""


@pytest.mark.slow
def test_compiled_layers_give_the_same_bits():
    """In a process of its own: the compiler cannot look through the checks of shapes."""
    pairs = [(s, n) for s, n in INTEGER if why_not(ARITHMETICS[n], parse_scheme(s), CPU) is None]
    script = COMPILED.replace("{pairs}", repr(pairs))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
