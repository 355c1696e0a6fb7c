"""The command line: one file a stage, loaded only when one of its commands is called."""
