"""Kinds of damage as data: settings that are checked without torch, drawn and applied."""
