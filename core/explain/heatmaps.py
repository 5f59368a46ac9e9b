"""Class activation maps and their kin as plain arithmetic: arrays in, a map out; no network and no film.

Each method is one short function from what a network's passes gave to a map that is nowhere negative; the functions
after them bring such a map to the size of the square and to the range [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.errors import ExplanationError

OVERFLOWED = "Expected a map of numbers, but the network's answer to this film overflowed."


def grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Weigh each channel with the mean of its gradient, add up, keep what is positive.

    Parameters
    ----------
    features, gradients : numpy.ndarray
        Shape (h, w, channels): the feature map, and the score's derivative with respect to it.

    Returns
    -------
    numpy.ndarray
        Shape (h, w), not negative, in logits.

    References
    ----------
    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
    """
    return np.maximum(features @ gradients.mean(axis=(0, 1)), 0)


def grad_cam_plus_plus(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Weigh each channel with the sum of its positive gradients, each as the paper's alpha counts its place.

    The method explains exp(score). Its derivatives are exp(score) times the powers of the score's own gradient, as far
    as the score depends on the features linearly, which is what the paper takes; exp(score) drops out of alpha and
    would only scale the map, out of all range where the score is far from 0, so it is left out.

    What the paper gains, more weight on small and on several separate regions, it gains where gradients differ from
    place to place. Where the features' mean is all that the answer sees, as in every network here, a channel's gradient
    is the same everywhere; all its alphas are, too, and what is left is :func:`grad_cam` of the channels that speak for
    the target alone.

    Parameters
    ----------
    features, gradients : numpy.ndarray
        Shape (h, w, channels), as of :func:`grad_cam`.

    Returns
    -------
    numpy.ndarray
        float64, shape (h, w), not negative, in logits.

    References
    ----------
    Chattopadhyay et al., Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional Networks,
    WACV 2018, in the closed form for an exponential; the alphas of a channel add up to 1, as in their code.
    """
    slopes = gradients.astype(np.float64)  # in single precision the cubes of faint gradients are 0
    below = 2 * slopes**2 + slopes**3 * features.sum(axis=(0, 1))
    alphas = np.divide(slopes**2, below, out=np.zeros_like(slopes), where=below != 0)
    total = alphas.sum(axis=(0, 1))
    weights = (np.maximum(slopes, 0) * alphas).sum(axis=(0, 1))
    return np.maximum(features @ np.divide(weights, total, out=np.zeros_like(weights), where=total != 0), 0)


def layer_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Weigh each channel, place by place, with its gradient where that is positive; add up, keep what is positive.

    Where :func:`grad_cam` gives each channel one weight for the whole film, here a place counts for as much as the
    score leans on it there, so that maps of layers far from the answer, which are finer, say something too.

    Parameters
    ----------
    features, gradients : numpy.ndarray
        Shape (h, w, channels), as of :func:`grad_cam`.

    Returns
    -------
    numpy.ndarray
        Shape (h, w), not negative, in logits.

    References
    ----------
    Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE Transactions on Image
    Processing 30, 2021.
    """
    return np.maximum((np.maximum(gradients, 0) * features).sum(axis=-1), 0)


def fuse_maps(maps: Sequence[np.ndarray], size: int, blur: float) -> np.ndarray:
    """Return the geometric mean of maps of several depths: high only where all of them are.

    Deep maps know what they look at and not quite where; those of early layers know where, and light up at edges that
    mean nothing. The paper takes the greatest of the maps, which keeps the faults of each.

    Parameters
    ----------
    maps : sequence of numpy.ndarray
        Each (h, w) over the same square, not negative, of whatever resolution.
    size : int
        Pixels a side of the square.
    blur : float
        Standard deviation, in pixels, of the Gaussian that each is smoothed with, so that a line in one and the same
        line a pixel further in another meet.

    Returns
    -------
    numpy.ndarray
        float32, shape (size, size), not negative, in the maps' own unit.
    """
    import cv2

    product = np.ones((size, size), np.float64)
    for each in maps:
        full = cv2.resize(np.ascontiguousarray(each, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        product *= np.maximum(cv2.GaussianBlur(full, (0, 0), blur), 0)
    return (product ** (1 / len(maps))).astype(np.float32)


def score_cam(features: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Weigh each channel with the softmax, over the channels, of the score it gets alone; keep what is positive.

    The softmax is the paper's (its algorithm 1). It makes the weights add up to 1, and the score of the baseline
    film that the paper takes away from every channel's score drops out of it, so no baseline is computed. As no weight
    is negative, the map is hardly ever empty: its peak tells how active the chosen channels are, not whether anything
    speaks for the target.

    Seen through a mask a film gives scores a logit or two apart, between which a softmax over hundreds of channels
    decides little: the map stays the same (likeness 0.99, two networks) when the head that makes the scores is
    scrambled. Weights by the score's rise above that of a black film, nothing below it, follow the head more (0.70, one
    network) and hit no less (16 of 36 films, against 15 with the softmax), but they are not the published method.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (h, w, channels).
    scores : numpy.ndarray
        Shape (channels,): the score of the film seen through each channel's mask, in logits.

    Returns
    -------
    numpy.ndarray
        Shape (h, w), not negative, in units of the feature map.

    References
    ----------
    Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPRW 2020.
    """
    if scores.size == 0:
        return np.zeros(features.shape[:2], np.float32)
    weights = np.exp(scores - scores.max())
    return np.maximum(features @ (weights / weights.sum()), 0)


def group_channels(features: np.ndarray, groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Group channels whose masks look alike (k-means on the masks), and choose the channel in the middle of each group.

    Which groups are found hangs on the channels that k-means starts from, and those are drawn by chance.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (h, w, channels), none of them the same everywhere.
    groups : int
        At most so many.
    seed : int
        Of the channels that k-means starts from, 0 to 2**32 - 1.

    Returns
    -------
    groups : numpy.ndarray
        int, shape (channels,): the group of each channel, from 0.
    members : numpy.ndarray
        int, shape (groups,): the channel whose mask lies nearest to the group's mean.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if not features.size:
        return np.zeros(0, int), np.zeros(0, int)
    masks = features.reshape(-1, features.shape[-1]).T.astype(np.float32)
    masks = masks - masks.min(axis=1, keepdims=True)
    masks /= masks.max(axis=1, keepdims=True)
    different = len(np.unique(masks, axis=0))
    # Some milliseconds of work, after which several threads of OpenMP go on spinning and keep the network waiting.
    with threadpool_limits(1):
        found = KMeans(min(groups, different), n_init=1, max_iter=20, random_state=seed).fit(masks)
    away = ((masks - found.cluster_centers_[found.labels_]) ** 2).sum(axis=1)
    order = np.lexsort((away, found.labels_))
    _, first = np.unique(found.labels_[order], return_index=True)
    return np.unique(found.labels_, return_inverse=True)[1], order[first]


def smooth_grad(gradients: np.ndarray) -> np.ndarray:
    """Average the magnitude of the gradient over noisy copies of the film.

    The paper leaves open whether to take magnitudes; with them, opposite signs on the two sides of an edge do not
    cancel, and the map tells where the answer is sensitive, not in which direction.

    Parameters
    ----------
    gradients : numpy.ndarray
        Shape (samples, size, size): the score's derivative with respect to each pixel of each noisy copy.

    Returns
    -------
    numpy.ndarray
        Shape (size, size), not negative, in logits per unit of brightness.

    References
    ----------
    Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.
    """
    return np.abs(gradients).mean(axis=0)


def channel_masks(features: np.ndarray, size: int) -> np.ndarray:
    """Upsample each channel of a feature map (h, w, channels) and stretch it to [0, 1]: (channels, size, size).

    A constant channel has nothing to stretch and becomes a mask of zeros.
    """
    maps = upsample(np.moveaxis(features, -1, 0), size)
    maps -= maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, span, out=np.zeros_like(maps), where=span > 0)


def upsample(maps: np.ndarray, size: int) -> np.ndarray:
    """Interpolate maps of shape (..., h, w) linearly to (..., size, size), each value in the middle of its own cell.

    Drawn from corner to corner, as tf-keras-vis does, a map of 7 x 7 is enlarged by a sixth about its middle: the
    highest points then lay 8 to 12 pixels of 224 further out than the breaks they belong to, where here they lie 2 to 5
    (97 simulated films, two networks; their distance to the break was twice as large, median 1.9 mm and 3.7 mm against
    1.0 mm and 1.8 mm).

    The padding of strided convolutions alone would have a cell of the deepest maps look 15 pixels down and to the right
    of its middle in EfficientNets, and up and to the left in ResNet50. Trained networks make up for it: of the maps of
    three of them the highest places lay, at the median of some 50 breaks, within 5 pixels up or down and within 9 to a
    side, in ResNet50 no otherwise than in EfficientNets. So nothing is shifted here.
    """
    rows, columns = (_interpolation(count, size) for count in maps.shape[-2:])
    return (rows @ maps @ columns.T).astype(np.float32)


def _interpolation(count: int, size: int) -> np.ndarray:
    """Return the (size, count) matrix that interpolates `count` values linearly to `size`."""
    position = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(count)), 0).astype(np.float32)


def grow_location(logits: np.ndarray, size: int) -> np.ndarray:
    """Interpolate a location head's answer between its cells, cubically and in logits.

    A break that lies between two cells raises both: in logits the curve through them is highest where it lies, while
    no linear curve, and hardly one through probabilities near 1, is ever highest anywhere but in the middle of a cell.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (cells, cells), of cells that are equally large, a power of two of pixels; the last ones may reach over
        the square's border.
    size : int
        Pixels a side of the square.

    Returns
    -------
    numpy.ndarray
        float32, shape (size, size), in logits.
    """
    import cv2

    cells = logits.shape[0]
    pixels = 1 << math.ceil(math.log2(size / cells))
    grown = cv2.resize(logits.astype(np.float32), (cells * pixels,) * 2, interpolation=cv2.INTER_CUBIC)
    return grown[:size, :size]


def scaled(square_map: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale a map that is nowhere negative by its own maximum; return it, range [0, 1], and that maximum, the peak.

    A map of zeros stays zero and its peak is 0.

    Raises
    ------
    ExplanationError
        If the map holds a value that is not a number.
    """
    if not np.isfinite(square_map).all():
        raise ExplanationError(OVERFLOWED)
    peak = float(square_map.max())
    # Divided in double precision: the reciprocal of the faintest single-precision peaks overflows.
    heat = square_map.astype(np.float64) / peak if peak > 0 else np.zeros_like(square_map)
    return heat.astype(np.float32), max(peak, 0.0)
