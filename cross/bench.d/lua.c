/* Lua: a script with closures, tables, strings and floating point, through the library's own interface. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
static const char script[] =
    "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
    "print('fib', fib(27))\n"
    "local t, s = {}, 12345\n"
    "for i = 1, 200000 do s = (s * 1103515245 + 12345) % 2147483648; t[i] = s end\n"
    "table.sort(t)\n"
    "print('sort', t[1], t[#t // 2], t[#t])\n"
    "local words = {}\n"
    "for i = 1, 60000 do local w = ('w%d'):format(i % 997); words[w] = (words[w] or 0) + #w end\n"
    "print('words', words.w1, words.w996)\n"
    "local parts = {}\n"
    "for i = 1, 40000 do parts[#parts + 1] = tostring(i):reverse():gsub('1', 'one') end\n"
    "print('strings', #table.concat(parts, ','))\n"
    "local x = 0.0\n"
    "for i = 1, 3000000 do x = x + 1.0 / (i * i) end\n"
    "print(('float %.12f'):format(x))\n"
    "print('pcall', pcall(error, 'as expected'))\n";
int main(void)
{
    lua_State *L = luaL_newstate();
    if (!L)
        return 1;
    luaL_openlibs(L);
    if (luaL_dostring(L, script)) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        return 1;
    }
    lua_close(L);
    return 0;
}
