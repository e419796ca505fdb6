"""What a stream forgets, chosen by text: one small class per policy."""

from everview.memory.policies.table import POLICIES as POLICIES
from everview.memory.policies.table import Full as Full
from everview.memory.policies.table import MemoryPolicy as MemoryPolicy
from everview.memory.policies.table import automatic as automatic
from everview.memory.policies.table import choices as choices
from everview.memory.policies.table import parse as parse
