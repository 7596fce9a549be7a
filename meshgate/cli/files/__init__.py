"""Files that commands read and write: texts, labelled texts, vectors, and the progress of a job."""
