"""The `loraplex` command: one file a group of verbs."""
