"""TensorBoard summaries that torch's `SummaryWriter` has no method for: encoded pictures, verbs, hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import histogram_raw, hparams


def add_summary(writer: SummaryWriter, summary: Summary, step: int | None = None) -> None:
    """Write a summary where a writer writes its own."""
    writer._get_file_writer().add_summary(summary, step)


def encoded_image(tag: str, encoded: bytes, width: int, height: int) -> Summary:
    """A picture that is already a PNG, or a GIF, which TensorBoard's image plugin plays.

    `SummaryWriter.add_video` would need moviepy for the latter.

    Args:
        tag: Where it appears.
        encoded: The file's bytes.
        width: In pixels.
        height: In pixels.
    """
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def verb_histogram(tag: str, shares: Mapping[str, float]) -> Summary:
    """A histogram with one bin for each verb: bin *i* lies around *i*, and its height is the verb's share in percent.

    TensorBoard's axis has numbers only; which verb is which stands in the card's description.
    """
    heights = [100 * share for share in shares.values()]
    summary: Summary = histogram_raw(
        tag,
        min=-0.5,
        max=len(heights) - 0.5,
        num=sum(heights),
        sum=sum(index * height for index, height in enumerate(heights)),
        sum_squares=sum(index**2 * height for index, height in enumerate(heights)),
        bucket_limits=[index + 0.5 for index in range(len(heights))],
        bucket_counts=heights,
    )
    names = ", ".join(f"{index} = {verb}" for index, verb in enumerate(shares))
    summary.value[0].metadata.summary_description = f"Percent of choices: {names}"
    return summary


def hparams_session(values: Mapping[str, bool | int | float | str], metrics: Sequence[str]) -> list[Summary]:
    """What makes a TensorBoard run a row of the HPARAMS tab: first what begins the session, last what ends it.

    `SummaryWriter.add_hparams` writes the same into a run of its own, apart from the curves, and its metrics as scalars of
    one point. Metrics here are tags of scalars of the same run; the tab shows the last value of each.

    Args:
        values: Hyper-parameters. The tab takes its columns from the first run that it finds: give all runs the same names.
        metrics: Tags of scalars.
    """
    experiment, start, end = hparams(dict(values), dict.fromkeys(metrics, 0.0))
    return [experiment, start, end]
