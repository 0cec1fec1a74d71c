"""Volume of a structure from its outline, slice by slice."""


def volume(mask, spacing):
    """Volume in millilitres of a mask of shape (slices, rows, columns); `spacing` in millimetres, in that order."""
    between, down, across = spacing
    total = 0.0
    for k in range(len(mask) - 1):
        area = mask[k].sum() * down * across
        total += area * between
    return total / 1000


def largest_slice(mask):
    """Number of the slice in which the structure is largest."""
    areas = [mask[k].sum() for k in range(len(mask))]
    return areas.index(max(areas))
