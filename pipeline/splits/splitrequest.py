"""What a user may say about the split, and what does not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from features.errors import OptionInvalid
from pipeline.splits.split import Split

# What NumPy and Keras take as a seed.
_HIGHEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """What the user said about the split.

    Attributes
    ----------
    split : Split or str or Path, optional
        A split or a file of one; not with `test_lists`.
    test_lists : str or Path, optional
        Folder of official lists.
    fold : int, optional
        Which of the official folds, by default 1; only with `test_lists`.
    test_fraction : float, optional
        Share of the clips to test on, by default 0.2; only where nothing else says which
        clips are tested.
    val_fraction : float, default 0.2
        Share of the training part to validate on, where no clip is marked for it.
    group_regex : str, optional
        See `pipeline.splits.groups.assign_groups`.
    allow_leaks : bool, default False
        Go on where groups stand on both sides, and mark every result LEAKY.
    seed : int, default 0
    ignore_groups : bool, default False
        Split clip by clip, as much published code does, to show what leaking does; only
        with `allow_leaks`, and only where the split is made by chance.
    join_near_duplicates : bool, default False
        Make one group of the groups of near-duplicate clips, see `pipeline.splits.duplicates`.
    """

    split: Split | str | Path | None = None
    test_lists: str | Path | None = None
    fold: int | None = None
    test_fraction: float | None = None
    val_fraction: float = 0.2
    group_regex: str | None = None
    allow_leaks: bool = False
    seed: int = 0
    ignore_groups: bool = False
    join_near_duplicates: bool = False

    def __post_init__(self) -> None:
        """Refuse options that would have no effect, and seeds out of range."""
        require_seed(self.seed)
        if self.ignore_groups:
            self._require_chance()
        for chosen in ("split", "test_lists"):
            if getattr(self, chosen) is None:
                continue
            if self.test_fraction is not None:
                raise excluding_options("test_fraction", chosen)
            if chosen == "split" and self.test_lists is not None:
                raise excluding_options("split", "test_lists")
        if self.fold is not None and self.test_lists is None:
            raise OptionInvalid(
                f"--fold says which of the official lists to use. Received: --fold {self.fold} "
                "without --test-lists.",
                hint="give --test-lists FOLDER as well, or leave --fold out",
            )

    def _require_chance(self) -> None:
        for chosen in ("split", "test_lists"):
            if getattr(self, chosen) is not None:
                raise excluding_options("ignore_groups", chosen)
        if self.join_near_duplicates:
            raise OptionInvalid(
                "--ignore-groups and --join-near-duplicates exclude each other: one tears groups "
                "apart, the other joins them. Received: both.",
                hint="leave --ignore-groups out",
            )
        if not self.allow_leaks:
            raise OptionInvalid(
                "--ignore-groups needs --allow-leaks: clips of one group may stand on both "
                "sides of the split. Received: --ignore-groups alone.",
                hint="add --allow-leaks to see what leaking does, or leave --ignore-groups out",
            )


def excluding_options(first: str, second: str) -> OptionInvalid:
    """Return the error that two parameters cannot be given together."""
    one, other = (f"--{name.replace('_', '-')}" for name in (first, second))
    return OptionInvalid(
        f"{one} and {other} exclude each other: both say which clips are tested. Received: both.",
        hint=f"leave {one} or {other} out",
    )


def require_seed(seed: int, n_seeds: int = 1) -> None:
    """Refuse seeds that NumPy or Keras would not take.

    Parameters
    ----------
    seed : int
        The first one.
    n_seeds : int, default 1
        How many follow each other, the first included.

    Raises
    ------
    OptionInvalid
    """
    if 0 <= seed <= _HIGHEST_SEED + 1 - n_seeds:
        return
    several = "" if n_seeds == 1 else f" with --seeds {n_seeds}"
    raise OptionInvalid(
        f"--seed must be from 0 to {_HIGHEST_SEED + 1 - n_seeds}{several}. Received: {seed}."
    )
