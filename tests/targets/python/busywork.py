"""A module whose methods take time."""


class Worker:
    def work(self):
        def squares(n):
            return [i * i for i in range(n)]

        return sum(squares(20000)) + self.more(100)

    @staticmethod
    def more(n):
        return sum(i for i in range(n))
