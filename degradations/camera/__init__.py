"""A camera, from sRGB to RAW and back: mosaic, noise, profiles, and how they are measured."""
