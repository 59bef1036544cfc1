"""What is known: curated cards, the LightRAG store, the case index."""
