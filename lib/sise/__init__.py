"""sise: daily prices, indicators, watchlists and live signals for KOSPI, KOSDAQ and NASDAQ shares."""

__version__ = "0.1.0"
