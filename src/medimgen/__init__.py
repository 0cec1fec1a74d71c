"""Helpers behind the course Generative AI in Medical Imaging.

Importing this package is cheap; submodules load when first used. Not a medical device.
"""

__version__ = "0.1.0"
