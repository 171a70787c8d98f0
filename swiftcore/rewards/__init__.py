"""Rewards: what completions are worth, by rules that need no model.

A reward is called with completions and, by keyword, with columns of the same length:

    from swiftcore.rewards import get_reward

    get_reward("accuracy")(["\\\\boxed{4}"], solution=["4"])    # [1.0]

It returns a number for each completion, or None where it does not apply. A user's own is registered
in a Python file:

    from swiftcore.rewards import register_reward

    @register_reward("short")
    def short(completions, **columns):
        return [float(len(text) < 100) for text in completions]
"""

from swiftcore.rewards.registry import Reward, get_reward, list_rewards, register_reward

__all__ = ["Reward", "get_reward", "list_rewards", "register_reward"]
