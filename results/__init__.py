"""Results: from records to statistics, the leaderboard, its static page and the MLflow mirror."""
