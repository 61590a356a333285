"""How much one lane, and one priority, may take of what all share.

Both rules keep something free without anyone setting a number. A lane may hold no more than what is left
free (dynamic thresholds: Choudhury & Hahne, IEEE/ACM ToN 6(2), 1998): alone it gets half of everything,
and n lanes that hang leave 1/(n+1) to the others. A priority leaves a part to those above it.
"""

_RESERVED = (0.0, 1 / 16, 1 / 4)
"""What each priority leaves, high to low."""


def lane_may_take(taken: int, free: int) -> bool:
    """Whether a lane that has `taken` of something may take one more while `free` are left."""
    return taken < free


def room_for(priority: int, free: int, total: int) -> int:
    """How many of `total` a priority may still take while `free` are left."""
    return max(0, free - int(total * _RESERVED[priority]))
