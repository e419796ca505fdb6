"""Which checkpoints are known, what they hold, and under which licence."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Commercial = Literal["yes", "no", "conditions", "unknown"]
"""Whether a licence allows commercial use: `conditions`: read what it excludes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One set of weights that `everview.load` knows by name."""

    source: str
    """What to give to `everview.load` and `--model`: a bundled name or a Hugging Face id."""
    preset: str
    """Name in `everview.presets` of the network that the file fits."""
    files: tuple[str, ...]
    """File names within the source, the preferred one first; the others hold the same values."""
    num_parameters: int | None
    """Parameters of the network; None for a bundled model, whose file tells."""
    heads: tuple[str, ...] = ("camera", "depth", "points", "tracks")
    """What it predicts."""
    license: str
    """Name of the licence of the weights (our code is Apache-2.0, whatever the weights are)."""
    license_url: str
    """Where the licence can be read."""
    commercial: Commercial
    """Whether the licence allows commercial use, to the best of our knowledge; read it yourself."""
    access: str = "open"
    """What the source asks for before it hands out the file."""
    trained_on: str = ""
    """Data and origin, in a few words."""
    verified: str
    """Which of these facts were checked, and where the others come from."""

    @property
    def num_bytes(self) -> int | None:
        """Bytes of its parameters in float32; a file is larger by its header, below 1 MB."""
        return None if self.num_parameters is None else 4 * self.num_parameters

    @property
    def bundled(self) -> bool:
        """Whether it ships inside the package."""
        return "/" not in self.source


_SIZE_1B = 1_256_537_516
_LAYOUT = "names, shapes and parameter count are tested (tests/golden); "

CATALOG = MappingProxyType(
    {
        checkpoint.source: checkpoint
        for checkpoint in (
            Checkpoint(
                source="mini",
                preset="mini",
                files=("weights.safetensors",),
                num_parameters=None,
                license="Apache-2.0",
                license_url="https://www.apache.org/licenses/LICENSE-2.0",
                commercial="yes",
                trained_on="procedural worlds of everview.world; no real image",
                verified="trained by a recipe of this repository",
            ),
            Checkpoint(
                source="facebook/VGGT-1B",
                preset="vggt-1b",
                files=("model.safetensors", "model.pt"),
                num_parameters=_SIZE_1B,
                license="CC BY-NC 4.0",
                license_url="https://huggingface.co/facebook/VGGT-1B",
                commercial="no",
                trained_on="17 data sets, several of them for research only",
                verified=_LAYOUT
                + "file names and licence are those its authors state, not checked",
            ),
            Checkpoint(
                source="facebook/VGGT-1B-Commercial",
                preset="vggt-1b",
                files=("model.safetensors", "vggt_1B_commercial.pt", "model.pt"),
                num_parameters=_SIZE_1B,
                license="VGGT License, with an acceptable use policy",
                license_url="https://huggingface.co/facebook/VGGT-1B-Commercial",
                commercial="conditions",
                access="asks for an application on its page, then a token (`hf auth login`)",
                trained_on="see its page; trained apart from VGGT-1B",
                verified="not checked: layout taken to be that of VGGT-1B; several file names are "
                "tried; that commercial use is allowed and military use excluded is what pages "
                "about it say",
            ),
            Checkpoint(
                source="lch01/StreamVGGT",
                preset="streamvggt-1b",
                files=("checkpoints.pth",),
                num_parameters=_SIZE_1B,
                license="per its model card; derived from VGGT-1B (CC BY-NC 4.0)",
                license_url="https://huggingface.co/lch01/StreamVGGT",
                commercial="no",
                trained_on="distilled from VGGT-1B; several of its data sets for research only",
                verified=_LAYOUT + "that it is non-commercial follows from VGGT-1B",
            ),
        )
    }
)
"""Source -> Checkpoint: everything that `everview models` lists."""


def bundled_folder(name: str) -> Path:
    """Where the package keeps a bundled model; absent if the installation is broken."""
    return Path(str(files("everview"))) / "assets" / name


def bundled_names() -> tuple[str, ...]:
    """Names of the models that ship inside the package."""
    return tuple(name for name, checkpoint in CATALOG.items() if checkpoint.bundled)
