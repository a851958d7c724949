"""A channel: what is published into it from outside goes to all who listen. It keeps nothing but its journal."""

from trio_swarm.objects.durable import DurableObject


class Channel(DurableObject):
    """See the module. Every id is a channel; topics, types and keys are the publisher's."""

    kind = "channel"
    publishable = True
    lag_policy = "skip"
