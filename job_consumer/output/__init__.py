"""What a run left in `/output`: checked file by file, then streamed as one zip."""
