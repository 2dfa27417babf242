"""Options of one command each, as one decorator each, so that `cli` shows what commands do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pipeline.commands.sharedoptions import HEAD_NAMES, PATH

# Written out, because importing the drawings imports NumPy; a test compares the two.
ACTION_NAMES = (
    "walk, run, jump, wave, squat, bow, punch, kick, clap, star-jump, sit-down, stand-up, "
    "pick-up, put-down"
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _join(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Which clips and frames are embedded, and by which weights.
extract_options = _join(
    click.option("--out", type=PATH, required=True, help="The store to write, an HDF5 file."),
    click.option(
        "--labels",
        default="folder",
        show_default=True,
        metavar="folder|FILE.csv",
        help="Take labels from class folders, or from a CSV with the columns path, label, group, "
        "split.",
    ),
    click.option(
        "--group-regex",
        metavar="REGEX",
        help="What names the group in a clip's path, its first parenthesis. By default inferred "
        "from the file names of UCF101, KTH, HMDB51, NTU and Kinetics.",
    ),
    click.option("--frames", type=int, help="Evenly spaced frames per clip.  [default: 20]"),
    click.option("--fps", type=float, help="Instead: frames per second of video."),
    click.option("--stride", type=int, help="Instead: every n-th frame."),
    click.option("--all-frames", is_flag=True, help="Instead: every frame."),
    click.option(
        "--weights",
        default="imagenet",
        show_default=True,
        metavar="imagenet|builtin|PATH",
        help="Official weights; those that come with framehead, trained on drawings, which need no "
        "network; or a Keras HDF5 file without top.",
    ),
    click.option(
        "--alpha",
        type=float,
        help="Width of MobileNetV2.  [default: 1.0; with builtin 0.35]",
    ),
    click.option(
        "--image-size",
        type=int,
        help="Input side, pixels.  [default: 224; with builtin 96]",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        default="float16",
        show_default=True,
        help="Type in which embeddings are stored.",
    ),
)

# What is drawn.
sample_options = _join(
    click.option(
        "--actors", type=int, default=12, show_default=True, help="People; each is a group."
    ),
    click.option(
        "--takes",
        type=int,
        default=2,
        show_default=True,
        help="Clips of each person and action.",
    ),
    click.option(
        "--actions",
        metavar="NAME,NAME...",
        help=f"Any of: {ACTION_NAMES}.  [default: all]",
    ),
    click.option(
        "--size", type=int, default=180, show_default=True, help="Height of the pictures."
    ),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Another one, other people."
    ),
)

# What the demo is made of, and where.
demo_options = _join(
    click.option(
        "--out",
        type=PATH,
        default="framehead-demo",
        show_default=True,
        help="Folder for everything.",
    ),
    click.option(
        "--weights",
        metavar="imagenet|builtin|PATH",
        help="Of MobileNetV2 with alpha 0.35, the narrowest, for speed.  [default: imagenet if "
        "Keras has them or can get them, else builtin]",
    ),
    click.option(
        "--actors",
        type=int,
        default=12,
        show_default=True,
        help="People to learn from; fewer are quicker, and tell less.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of all chance."),
)

# What is trained, and on how much.
train_options = _join(
    click.option("--out", type=PATH, required=True, help="The run to write, a folder."),
    click.option(
        "--head",
        default="lstm",
        show_default=True,
        help=f"One of: {HEAD_NAMES}. With :motion it sees what changes from frame to frame, with "
        ":both that beside the embeddings, with :centred how they differ from their clip's mean.",
    ),
    click.option(
        "--test-fraction",
        type=float,
        help="Share of the clips held out for testing, in whole groups; only where no split is "
        "given.  [default: 0.2]",
    ),
)

# What is compared.
compare_options = _join(
    click.option("--out", type=PATH, required=True, help="The comparison to write, a folder."),
    click.option(
        "--heads",
        default="mean-linear,mean-linear:motion,lstm,gru",
        show_default=True,
        metavar="NAME,NAME...",
        help=f"Any of: {HEAD_NAMES}. With :motion or :both they see what changes from frame to "
        "frame, with :centred how frames differ from their clip's mean.",
    ),
    click.option(
        "--seeds", type=int, default=3, show_default=True, help="Seeds per head and split."
    ),
    click.option(
        "--folds",
        type=int,
        help="Folds of whole groups; not with --split or --test-lists.  [default: the store's own "
        "split if it names a test part, else 5]",
    ),
)

# What is predicted with, and what is drawn.
predict_options = _join(
    click.option(
        "--weights",
        type=PATH,
        help="Where the backbone's weights lie now.  [default: where they lay]",
    ),
    click.option(
        "--overlay",
        type=PATH,
        metavar="OUT",
        help="Write a copy of the video with the prediction drawn below: OUT.webm (VP8, for "
        "browsers), OUT.mp4 (MPEG-4 part 2) or OUT.avi (Motion JPEG); for several videos a folder.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace overlays that stand there."),
)

# What is exported, and how.
export_options = _join(
    click.option("--out", type=PATH, required=True, help="File, or folder for the projector."),
    click.option(
        "--format",
        type=click.Choice(["npz", "csv", "parquet", "projector"]),
        help="[default: what the suffix of --out says]",
    ),
    click.option(
        "--level",
        type=click.Choice(["frame", "clip"]),
        help="One row per frame, or per clip: the mean over its frames.  [default: frame; with "
        "--head clip]",
    ),
    click.option(
        "--head",
        "run",
        type=PATH,
        metavar="RUN",
        help="A trained head: export what its last layer classifies, one vector per clip.",
    ),
)
