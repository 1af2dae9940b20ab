"""Where bars, symbols and corporate actions come from: the only packages with foreign I/O for market data."""
