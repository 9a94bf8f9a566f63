/* SQLite: inserts, updates, joins, aggregates in memory. */
#include <sqlite3.h>
#include <stdio.h>
static int show(void *u, int n, char **v, char **c)
{
    (void)u, (void)c;
    for (int i = 0; i < n; i++)
        printf("%s%c", v[i] ? v[i] : "NULL", i + 1 < n ? '|' : '\n');
    return 0;
}
static void run(sqlite3 *db, const char *sql)
{
    char *error = 0;
    if (sqlite3_exec(db, sql, show, 0, &error) != SQLITE_OK)
        fprintf(stderr, "%s: %s\n", sql, error);
}
int main(void)
{
    sqlite3 *db;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        return 1;
    run(db, "create table t(id integer primary key, a int, b text); create index ta on t(a);");
    run(db, "with recursive n(i) as (select 1 union all select i+1 from n where i<30000)"
            " insert into t select i, (i*7919)%1009, 'row '||i||' '||hex(i*i) from n;");
    run(db, "update t set b=b||'!' where a%7=3;");
    run(db, "select count(*), sum(length(b)), max(b) from t;");
    run(db, "select x.a, count(*) c from t x join t y on x.a=y.a and y.id<3000 group by x.a order by c desc, x.a limit 5;");
    run(db, "delete from t where a between 100 and 300; select count(*), sum(a) from t where b like '%9%';");
    return sqlite3_close(db);
}
