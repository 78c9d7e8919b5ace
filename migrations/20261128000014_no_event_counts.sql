-- Each step of the views wrote how often each kind of event had happened, and nobody asked.
DROP TABLE count_view;
