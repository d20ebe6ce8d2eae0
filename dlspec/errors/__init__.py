"""Problems with their codes and locations, how they are printed, and the exceptions that users may catch."""

from dlspec.errors.closest_names import find_closest as find_closest
from dlspec.errors.closest_names import suggest as suggest
from dlspec.errors.exceptions import DataError as DataError
from dlspec.errors.exceptions import InvalidSetting as InvalidSetting
from dlspec.errors.exceptions import SpecError as SpecError
from dlspec.errors.exceptions import TrainingFailed as TrainingFailed
from dlspec.errors.exceptions import UserError as UserError
from dlspec.errors.problem import CONTROL_CHARACTERS as CONTROL_CHARACTERS
from dlspec.errors.problem import MAX_FIX_LENGTH as MAX_FIX_LENGTH
from dlspec.errors.problem import UNKNOWN_PART_CODES as UNKNOWN_PART_CODES
from dlspec.errors.problem import Code as Code
from dlspec.errors.problem import Finding as Finding
from dlspec.errors.problem import KeyPath as KeyPath
from dlspec.errors.problem import PlainTextFilter as PlainTextFilter
from dlspec.errors.problem import Problem as Problem
from dlspec.errors.problem import SourceLocation as SourceLocation
from dlspec.errors.problem import format_value as format_value
from dlspec.errors.problem import join_first as join_first
from dlspec.errors.problem import join_with_or as join_with_or
from dlspec.errors.problem import replace_control_characters as replace_control_characters
from dlspec.errors.problem import replace_in_lines as replace_in_lines
from dlspec.errors.problem import shorten_middle as shorten_middle
from dlspec.errors.problem_groups import MAX_SHOWN_PLACES as MAX_SHOWN_PLACES
from dlspec.errors.problem_groups import MAX_SHOWN_PROBLEMS as MAX_SHOWN_PROBLEMS
from dlspec.errors.problem_groups import format_problems as format_problems
