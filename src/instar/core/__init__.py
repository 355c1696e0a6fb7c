"""The ground floor: the words and services which every stage of the life cycle shares, and which know no stage.

Takes nothing from any stage. Gives ids, clocks, the database, blobs, the journal, lineage and identity to all of them.
"""
