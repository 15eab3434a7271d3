"""The defaults of Pods and machines, and what defaults are written with: nulls dropped, shapes not trusted."""
