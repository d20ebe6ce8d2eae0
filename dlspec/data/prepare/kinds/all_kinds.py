"""Registers all kinds: the registries import it when they are first asked for a kind."""

from dlspec.data.prepare.kinds import array_column as array_column
from dlspec.data.prepare.kinds import category as category
from dlspec.data.prepare.kinds import class_target as class_target
from dlspec.data.prepare.kinds import date as date
from dlspec.data.prepare.kinds import grouped_number as grouped_number
from dlspec.data.prepare.kinds import image as image
from dlspec.data.prepare.kinds import image_target as image_target
from dlspec.data.prepare.kinds import list_targets as list_targets
from dlspec.data.prepare.kinds import mask_target as mask_target
from dlspec.data.prepare.kinds import number as number
from dlspec.data.prepare.kinds import numbers as numbers
from dlspec.data.prepare.kinds import plain_kinds as plain_kinds
from dlspec.data.prepare.kinds import text as text
from dlspec.data.prepare.kinds import text_target as text_target
from dlspec.data.prepare.kinds import user_kinds as user_kinds
from dlspec.data.prepare.kinds import value_target as value_target
