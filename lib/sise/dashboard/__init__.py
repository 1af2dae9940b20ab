"""The viewer: Streamlit pages over the lake (through deltalake) and Redis. Imports no Spark."""
