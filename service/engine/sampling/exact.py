"""Functions made of exactly rounded steps: a value has the same bits in whatever array it stands.

Every step is an addition, a multiplication, a division, a square root or a comparison in float64, and IEEE 754 leaves
one way to round each. A library's logarithm may treat the last values of an array in another way than the rest; these
functions do not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["inverse_normal_cdf", "log", "to_uniform"]

Float64 = npt.NDArray[np.float64]

# Numerator and denominator of the rational approximations of algorithm AS 241, each from the constant term up.
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def to_uniform(words: npt.NDArray[np.uint64]) -> Float64:
    """Uniform numbers from random words: u = (k + 1/2) / 2^52, with k the first 52 bits of the word.

    So u lies strictly between 0 and 1 and is symmetric about 1/2, exactly. With one bit more, the greatest k + 1/2
    would have no float64, and u would round to 1.

    Args:
        words: uint64 of any shape.

    Returns:
        float64 of that shape.

    Example:
        >>> to_uniform(np.array([0, 1 << 63], np.uint64)).tolist() == [2.0**-53, 0.5 + 2.0**-53]
        True
    """
    values: Float64 = (words >> np.uint64(12)).astype(np.float64)
    values += 0.5
    values *= 2.0**-52
    return values


def inverse_normal_cdf(p: Float64) -> Float64:
    """The inverse of the standard normal distribution function: the x with Phi(x) = p.

    Three rational functions of degree 7 over 7: of q^2 for |q| <= 0.425 with q = p - 1/2, and of sqrt(-log(min(p, 1 -
    p))) up to 5 and beyond (Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied
    Statistics 37, 1988, routine PPND16: about 1 part in 10^16 in exact arithmetic).

    Args:
        p: float64 of any shape, strictly between 0 and 1.

    Returns:
        float64 of that shape, with a relative error of at most 2e-15.
    """
    q = p - 0.5
    square = q * q
    np.subtract(0.180625, square, out=square)
    result: Float64 = _ratio(square, _CENTRE)
    result *= q
    tails = np.abs(q) > 0.425
    if tails.any():
        result[tails] = _tail(p[tails], q[tails])
    return result


def _tail(p: Float64, q: Float64) -> Float64:
    root = np.sqrt(-log(np.where(q < 0, p, 1.0 - p)))
    near = _ratio(np.minimum(root, 5.0) - 1.6, _MIDDLE)
    if (far := root > 5.0).any():
        near[far] = _ratio(root[far] - 5.0, _FAR)
    return np.copysign(near, q)


def _ratio(x: Float64, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Float64:
    numerator, denominator = (_polynomial(x, c) for c in coefficients)
    numerator /= denominator
    return numerator


def _polynomial(x: Float64, coefficients: tuple[float, ...]) -> Float64:
    value = np.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value *= x
        value += c
    return value


_LN2 = 0.6931471805599453
_LOG_SERIES = tuple(1.0 / k for k in range(1, 25, 2))


def log(x: Float64) -> Float64:
    """The natural logarithm: log x = log m + e log 2, of x = m 2^e with m between sqrt(1/2) and sqrt(2).

    log m = 2 s (1 + s^2 / 3 + s^4 / 5 + ...) with s = (m - 1) / (m + 1). As |s| <= 0.172, the terms after s^22 / 23 sum
    to less than 1e-17.

    Args:
        x: float64 of any shape, above zero.

    Returns:
        float64 of that shape, with an error of at most 4e-16 relative to 1 + |log x|.
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(s * s, _LOG_SERIES)
    series *= s * 2.0
    series += (exponent - low) * _LN2
    return series
