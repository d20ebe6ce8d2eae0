"""Old location of `Alphabet`, kept for code written for version 0.1.0."""

from dlspec.data.prepare.alphabet import Alphabet as Alphabet
