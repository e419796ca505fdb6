"""What the name of a frame tells of its time."""

import re


def time_in_name(name: str, position: int) -> float:
    """The last number of a name, such as 3414.033 of `41048190_3414.033`; else the position.

    Whether these are seconds or counted frames is the set's own affair; they grow with time.
    """
    numbers = re.findall(r"\d+(?:\.\d+)?", name)
    return float(numbers[-1]) if numbers else float(position)
