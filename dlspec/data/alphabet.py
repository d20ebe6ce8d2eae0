"""The old home of `Alphabet`, kept because version 0.1.0 named it so."""

from dlspec.data.prepare.alphabet import Alphabet as Alphabet
