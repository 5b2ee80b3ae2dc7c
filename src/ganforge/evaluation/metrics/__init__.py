"""One file a metric, each a pure function of two samples."""
