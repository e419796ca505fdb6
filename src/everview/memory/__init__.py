"""What stays from frame to frame: storage, state of a stream, and policies of forgetting."""

from everview.memory.policies import POLICIES as POLICIES
from everview.memory.policies import parse as parse
