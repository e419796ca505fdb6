"""Showing a clip to a network: frame by frame if it is causal, all at once if it is not."""

import torch
from jaxtyping import Float
from torch import Tensor

from everview.geometry.prediction import Prediction
from everview.model.network import Network


def is_streaming(network: Network) -> bool:
    """Whether the network sees only the past."""
    return network.config.attention == "causal"


def mode(network: Network) -> str:
    """`streaming` or `one pass`, for result files."""
    return "streaming" if is_streaming(network) else "one pass"


def show(
    network: Network,
    images: Float[Tensor, "s 3 H W"],
    *,
    queries: Float[Tensor, "t 2"] | None = None,
    memory: str = "full",
) -> list[Prediction]:
    """Predict a clip.

    Args:
        network: causal: streamed frame by frame; global: one pass over all frames.
        images: RGB in [0, 1].
        queries: pixels of the first frame that are followed through the others, if the network
            can.
        memory: policy of the stream; a single pass forgets nothing.

    Returns:
        One prediction per frame, or a single one of all frames.
    """
    if network.track_head is None:
        queries = None
    if is_streaming(network):
        return stream_clip(network, images, queries=queries, memory=memory)
    with torch.inference_mode():
        points = None if queries is None else queries[None]
        return [network(images[None], points)]


def stream_clip(
    network: Network,
    images: Float[Tensor, "s 3 H W"],
    *,
    queries: Float[Tensor, "t 2"] | None = None,
    memory: str = "full",
) -> list[Prediction]:
    """Show images frame by frame; points of the first are followed through the others."""
    predictions = []
    with torch.inference_mode(), network.stream(memory) as stream:
        for image in images:
            predictions.append(stream.step(image))
            if queries is not None and len(predictions) == 1:
                stream.track(queries)
    return predictions
