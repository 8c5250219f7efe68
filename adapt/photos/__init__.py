"""Photographs: reading and writing every format, folders, and pairs of folders."""
