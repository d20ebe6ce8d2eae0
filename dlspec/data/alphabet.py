"""Old import path of `Alphabet`, kept because files of version 0.1.0 refer to it."""

from dlspec.data.prepare.alphabet import Alphabet as Alphabet
