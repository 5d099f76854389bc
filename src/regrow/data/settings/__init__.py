"""Settings of sources and steps: one file a part of ``CurateConfig``; they import no engine."""
