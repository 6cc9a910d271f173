"""The built-in stories: a little language, for when there is no network. See `generator`."""

from duckling_data.corpus.demo.generator import DEFAULT_STORIES, demo_stories

__all__ = ["DEFAULT_STORIES", "demo_stories"]
