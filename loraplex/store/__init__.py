"""Files by content: base models and adapters, shared by every process through the home folder."""
