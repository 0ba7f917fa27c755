"""What ``autotune doctor`` looks at: a file a topic, each giving findings."""
